//! PEFT's format of VeRA.

use super::Config;
use crate::adapter::peft::fields::{FAN_IN_FAN_OUT, dropout_field, f64_field, positive_integer};
use crate::adapter::peft::mapping::fields_that_differ;
use crate::adapter::peft::target_selector::TargetSelector;
use crate::adapter::peft::{ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping};
use crate::error::Result;
use crate::model::SiteInfo;
use serde_json::{Map, Value, json};

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(Fields::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        ConfigFields::from([
            ("bias", json!("none")),
            ("d_initial", json!(self.d_initial)),
            (FAN_IN_FAN_OUT, json!(context.info.fan_in_fan_out())),
            ("init_weights", json!(true)),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", Value::Null),
            ("projection_prng_key", json!(self.projection_seed)),
            ("r", json!(self.rank)),
            ("save_projection", json!(true)),
            ("target_modules", context.target_modules(&self.target_sites(context.sites))),
            ("vera_dropout", json!(self.dropout)),
        ])
    }
}

/// The fields of `VERA`.
#[derive(Debug, Clone)]
pub struct Fields {
    rank: usize,
    projection_seed: u64,
    d_initial: f64,
    dropout: f64,
    targets: TargetSelector,
}

impl PeftFields for Fields {
    type Config = Config;
    const PEFT_TYPE: &'static str = "VERA";
    const ACCEPTED_FIELDS: &'static [&'static str] =
        &["r", "projection_prng_key", "save_projection", "vera_dropout", "d_initial", "init_weights", FAN_IN_FAN_OUT];

    fn value_error(field: &str, value: &Value) -> Option<String> {
        let is_unsupported = field == "save_projection" && *value == false;
        let message = "save_projection is false, and its random matrices cannot be drawn again here: train with \
                       save_projection=True";
        is_unsupported.then(|| message.to_string())
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self {
            rank: positive_integer(fields, "r")?,
            projection_seed: fields.get("projection_prng_key").and_then(Value::as_u64).unwrap_or(0),
            d_initial: f64_field(fields, "d_initial")?.unwrap_or(0.1),
            dropout: dropout_field(fields, "vera_dropout")?,
            targets: TargetSelector::from_fields(fields)?,
        })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
        Ok(Config {
            rank: self.rank,
            d_initial: self.d_initial,
            dropout: self.dropout,
            projection_seed: self.projection_seed,
            target_modules: self.targets.linear_modules(sites, naming)?,
            ..Config::default()
        })
    }

    fn differing_fields(&self, config: &Config) -> Vec<&'static str> {
        fields_that_differ([("r", config.rank == self.rank)])
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        None
    }

    fn accepts_kv_size(&self) -> bool {
        false
    }
}
