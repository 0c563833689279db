//! PEFT's format of LayerNorm tuning.

use super::Config;
use crate::adapter::peft::target_selector::{TargetSelector, required_modules};
use crate::adapter::peft::{ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping};
use crate::error::Result;
use crate::model::SiteInfo;
use serde_json::{Map, Value};

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(Fields::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        ConfigFields::from([
            ("exclude_modules", Value::Null),
            ("target_modules", context.target_modules(&self.target_sites(context.sites))),
        ])
    }
}

/// The fields of `LN_TUNING`.
#[derive(Debug, Clone)]
pub struct Fields {
    targets: TargetSelector,
}

impl PeftFields for Fields {
    type Config = Config;
    const PEFT_TYPE: &'static str = "LN_TUNING";
    const ACCEPTED_FIELDS: &'static [&'static str] = &[];

    fn value_error(_: &str, _: &Value) -> Option<String> {
        None
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self { targets: TargetSelector::from_fields(fields)? })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
        let is_target =
            |info: &SiteInfo| !info.site.module.is_linear() && self.targets.matches(naming.module_path(info));
        Ok(Config { target_modules: Some(required_modules(sites, is_target)?), ..Config::default() })
    }

    fn differing_fields(&self, _: &Config) -> Vec<&'static str> {
        Vec::new()
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        None
    }

    fn accepts_kv_size(&self) -> bool {
        false
    }
}
