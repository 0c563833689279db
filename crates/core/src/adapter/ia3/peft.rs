//! PEFT's format of IA³.

use super::Config;
use crate::adapter::peft::fields::FAN_IN_FAN_OUT;
use crate::adapter::peft::target_selector::{ModuleMatcher, TargetSelector, selected_modules};
use crate::adapter::peft::{ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping};
use crate::error::Result;
use crate::model::SiteInfo;
use serde_json::{Map, Value, json};

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(Fields::PEFT_TYPE)
    }

    /// Writes whole paths: PEFT compares `feedforward_modules` with the entries of `target_modules` as they are written.
    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        let adapted_sites = self.target_sites(context.sites);
        let feedforward_sites = adapted_sites.iter().copied().filter(|info| self.scales_input(info));
        ConfigFields::from([
            ("exclude_modules", Value::Null),
            (FAN_IN_FAN_OUT, json!(context.info.fan_in_fan_out())),
            ("feedforward_modules", json!(context.paths(feedforward_sites))),
            ("init_ia3_weights", json!(true)),
            ("target_modules", json!(context.paths(adapted_sites.iter().copied()))),
        ])
    }
}

/// The fields of `IA3`.
#[derive(Debug, Clone)]
pub struct Fields {
    targets: TargetSelector,
    feedforward_modules: Option<ModuleMatcher>,
}

impl PeftFields for Fields {
    type Config = Config;
    const PEFT_TYPE: &'static str = "IA3";
    const ACCEPTED_FIELDS: &'static [&'static str] = &["feedforward_modules", "init_ia3_weights", FAN_IN_FAN_OUT];

    fn value_error(_: &str, _: &Value) -> Option<String> {
        None
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self {
            targets: TargetSelector::from_fields(fields)?,
            feedforward_modules: ModuleMatcher::from_field(fields, "feedforward_modules")?,
        })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
        let is_feedforward =
            |path: &str| self.feedforward_modules.as_ref().is_some_and(|matcher| matcher.matches(path));
        Ok(Config {
            target_modules: self.targets.linear_modules(sites, naming)?,
            feed_forward_modules: selected_modules(sites, |info| {
                self.targets.selects_linear(info, naming) && is_feedforward(naming.module_path(info))
            }),
            ..Config::default()
        })
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
