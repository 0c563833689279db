//! PEFT's format of LoRA.

use super::{BiasKind, Config};
use crate::adapter::peft::mapping::{
    FAN_IN_FAN_OUT, are_same_sites, bool_field, dropout_field, f64_field, fields_that_differ, invalid_config,
    is_default, pattern_field, positive_integer, unsupported_bias,
};
use crate::adapter::peft::module_pattern::{expand_pattern, pattern_value};
use crate::adapter::peft::target_selector::TargetSelector;
use crate::adapter::peft::{ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping};
use crate::adapter::tensor_spec::{CONFIG_FILE, unsupported_file};
use crate::error::Result;
use crate::model::SiteInfo;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(PeftConfig::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        let adapted_sites = self.target_sites(context.sites);
        // By whole paths, each of which selects one module.
        let pattern = |value: &dyn Fn(&SiteInfo) -> Option<Value>| -> Map<String, Value> {
            let entry = |info: &&SiteInfo| Some((context.naming.module_path(info).to_string(), value(info)?));
            adapted_sites.iter().filter_map(entry).collect()
        };
        let rank = |info: &SiteInfo| self.rank_for(info);
        let alpha = |info: &SiteInfo| self.alpha_for(info);
        let rank_pattern = pattern(&|info| (rank(info) != self.rank).then(|| json!(rank(info))));
        let alpha_pattern = pattern(&|info| (alpha(info) != self.alpha()).then(|| alpha_to_json(alpha(info))));
        let bias = match self.bias {
            BiasKind::None => "none",
            BiasKind::LoraOnly => "lora_only",
        };
        ConfigFields::from([
            ("alpha_pattern", json!(alpha_pattern)),
            ("bias", json!(bias)),
            ("exclude_modules", Value::Null),
            (FAN_IN_FAN_OUT, json!(context.info.fan_in_fan_out())),
            ("init_lora_weights", json!(true)),
            ("layer_replication", Value::Null),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", Value::Null),
            ("lora_alpha", alpha_to_json(self.alpha())),
            ("lora_bias", json!(false)),
            ("lora_dropout", json!(self.dropout)),
            ("r", json!(self.rank)),
            ("rank_pattern", json!(rank_pattern)),
            ("target_modules", context.target_modules(&adapted_sites)),
            ("use_dora", json!(self.dora)),
            ("use_rslora", json!(self.rslora)),
        ])
    }
}

/// Writes an integral alpha as an integer, which is PEFT's type of `lora_alpha`.
fn alpha_to_json(alpha: f64) -> Value {
    match alpha.fract() == 0.0 && alpha.abs() < f64::from(u32::MAX) {
        true => json!(alpha as i64),
        false => json!(alpha),
    }
}

/// The fields of `LORA`.
#[derive(Debug, Clone)]
pub struct PeftConfig {
    rank: usize,
    alpha: f64,
    dropout: f64,
    use_rslora: bool,
    use_dora: bool,
    bias: BiasKind,
    targets: TargetSelector,
    /// By names that are matched like those of a list of target modules.
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

/// Low-rank update of one module outside of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowRank {
    pub rank: usize,
    pub alpha: f64,
    /// Scale by `alpha/√rank` instead of `alpha/rank`.
    pub rslora: bool,
}

impl LowRank {
    pub fn scaling(self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

impl PeftConfig {
    /// The update of a module outside of the layers, if the target modules name it.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_adapter`) for DoRA of it.
    pub fn low_rank_at(&self, path: &str) -> Result<Option<LowRank>> {
        if !self.targets.selects_module_outside_layers(path) {
            return Ok(None);
        }
        if self.use_dora {
            let advice =
                format!("use_dora is not applied to {path}: leave it out of target_modules, or set use_dora=False");
            return Err(unsupported_file(CONFIG_FILE, advice));
        }
        let rank = pattern_value("rank_pattern", &self.rank_pattern, path)?.unwrap_or(self.rank);
        let alpha = pattern_value("alpha_pattern", &self.alpha_pattern, path)?.unwrap_or(self.alpha);
        Ok(Some(LowRank { rank, alpha, rslora: self.use_rslora }))
    }
}

impl PeftFields for PeftConfig {
    type Config = Config;
    const PEFT_TYPE: &'static str = "LORA";
    const ACCEPTED_FIELDS: &'static [&'static str] = &[
        "r",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "use_dora",
        "bias",
        "rank_pattern",
        "alpha_pattern",
        "init_lora_weights",
        FAN_IN_FAN_OUT,
    ];

    fn value_error(field: &str, value: &Value) -> Option<String> {
        match field {
            "bias" => {
                let is_supported = is_default(value) || value == "none" || value == "lora_only";
                (!is_supported).then(|| unsupported_bias(value))
            }
            "init_lora_weights" => init_error(value),
            _ => None,
        }
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        let alpha = f64_field(fields, "lora_alpha")?;
        Ok(Self {
            alpha: alpha.ok_or_else(|| invalid_config("lora_alpha must be a number"))?,
            rank: positive_integer(fields, "r")?,
            dropout: dropout_field(fields, "lora_dropout")?,
            use_rslora: bool_field(fields, "use_rslora")?,
            use_dora: bool_field(fields, "use_dora")?,
            bias: match fields.get("bias").and_then(Value::as_str) {
                Some("lora_only") => BiasKind::LoraOnly,
                _ => BiasKind::None,
            },
            targets: TargetSelector::from_fields(fields)?,
            rank_pattern: pattern_field(fields, "rank_pattern", |value| {
                value.as_u64().filter(|rank| *rank > 0).and_then(|rank| usize::try_from(rank).ok())
            })?,
            alpha_pattern: pattern_field(fields, "alpha_pattern", Value::as_f64)?,
        })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
        let is_target = |info: &SiteInfo| self.targets.selects_linear(info, naming);
        let targets: Vec<&SiteInfo> = sites.iter().filter(|info| is_target(info)).collect();
        Ok(Config {
            rank: self.rank,
            alpha: Some(self.alpha),
            dropout: self.dropout,
            rslora: self.use_rslora,
            dora: self.use_dora,
            bias: self.bias,
            rank_pattern: expand_pattern("rank_pattern", &self.rank_pattern, &targets, naming)?,
            alpha_pattern: expand_pattern("alpha_pattern", &self.alpha_pattern, &targets, naming)?,
            target_modules: self.targets.linear_modules(sites, naming)?,
            ..Config::default()
        })
    }

    fn differing_fields(&self, config: &Config, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Vec<&'static str>> {
        let (found, targets) = (self.to_config(sites, naming)?, config.target_sites(sites));
        let (has_rank, has_alpha) = (config.rank == found.rank, config.alpha() == found.alpha());
        let has_ranks = targets.iter().all(|info| found.rank_for(info) == config.rank_for(info));
        let has_alphas = targets.iter().all(|info| found.alpha_for(info) == config.alpha_for(info));
        Ok(fields_that_differ([
            ("r", has_rank),
            ("lora_alpha", has_alpha),
            ("lora_dropout", config.dropout == self.dropout),
            ("use_rslora", config.rslora == self.use_rslora),
            ("use_dora", config.dora == self.use_dora),
            ("bias", config.bias == self.bias),
            ("target_modules", are_same_sites(&found.target_sites(sites), &targets)),
            // A module without an entry has the common value.
            ("rank_pattern", has_ranks || !has_rank),
            ("alpha_pattern", has_alphas || !has_alpha),
        ]))
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        None
    }

    fn accepts_kv_size(&self) -> bool {
        false
    }
}

/// Initialisations that leave the base's weights unchanged. The others move a part of them into the adapter, which then does not
/// fit the published base.
const BASE_PRESERVING_INITS: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

fn init_error(value: &Value) -> Option<String> {
    let is_supported = match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(name) => BASE_PRESERVING_INITS.contains(&name.to_lowercase().as_str()),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    };
    let advice = "it changes the base's weights: convert the adapter to plain LoRA by passing \
                  path_initial_model_for_weight_conversion to save_pretrained";
    (!is_supported).then(|| format!("init_lora_weights is {value}, and {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integral_alpha_is_written_as_an_integer() {
        assert_eq!((alpha_to_json(4.0), alpha_to_json(4.5)), (json!(4), json!(4.5)));
    }
}
