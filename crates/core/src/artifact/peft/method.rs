//! What an `adapter_config.json` says of its method, by `peft_type`, and what that is on a base.

use super::config::{bool_field, f64_field, invalid_config, positive_integer};
use super::module_naming::ModuleNaming;
use super::target_selector::{Matcher, TargetSelector};
use crate::adapter::targets::TargetModules;
use crate::adapter::{self, ia3, layer_norm, lora, p_tuning, prefix_tuning, prompt_tuning, vera};
use crate::error::{Error, Result};
use crate::model::{Module, SiteInfo};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub enum Method {
    Lora(Box<LoraFields>),
    Ia3 { targets: TargetSelector, feedforward_modules: Option<Matcher> },
    LayerNorm(TargetSelector),
    Vera(VeraFields),
    PromptTuning(usize),
    PTuning(usize),
    PrefixTuning(usize),
}

#[derive(Debug, Clone)]
pub struct LoraFields {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    pub use_rslora: bool,
    pub use_dora: bool,
    pub bias: lora::BiasKind,
    pub targets: TargetSelector,
    /// By names that are matched as those of a list are.
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

#[derive(Debug, Clone)]
pub struct VeraFields {
    pub rank: usize,
    pub projection_seed: u64,
    pub d_initial: f64,
    pub dropout: f64,
    pub targets: TargetSelector,
}

/// The `peft_type`s that can be read.
pub const PEFT_TYPES: [&str; 7] = ["LORA", "IA3", "LN_TUNING", "VERA", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"];

impl Method {
    /// # Errors
    /// `Invalid` (`unreadable_adapter`, `unsupported_adapter`) naming the field.
    pub fn parse(peft_type: &str, fields: &Map<String, Value>) -> Result<Self> {
        let num_virtual_tokens = || positive_integer(fields, "num_virtual_tokens");
        Ok(match peft_type {
            "LORA" => Self::Lora(Box::new(LoraFields::parse(fields)?)),
            "IA3" => Self::Ia3 {
                targets: TargetSelector::from_fields(fields)?,
                feedforward_modules: Matcher::from_field(fields, "feedforward_modules")?,
            },
            "LN_TUNING" => Self::LayerNorm(TargetSelector::from_fields(fields)?),
            "VERA" => Self::Vera(VeraFields::parse(fields)?),
            "PROMPT_TUNING" => Self::PromptTuning(num_virtual_tokens()?),
            "P_TUNING" => Self::PTuning(num_virtual_tokens()?),
            "PREFIX_TUNING" => Self::PrefixTuning(num_virtual_tokens()?),
            other => return Err(invalid_config(format!("peft_type is {other:?}"))),
        })
    }

    /// PEFT's word for it.
    pub fn peft_type(&self) -> &'static str {
        match self {
            Self::Lora(_) => "LORA",
            Self::Ia3 { .. } => "IA3",
            Self::LayerNorm(_) => "LN_TUNING",
            Self::Vera(_) => "VERA",
            Self::PromptTuning(_) => "PROMPT_TUNING",
            Self::PTuning(_) => "P_TUNING",
            Self::PrefixTuning(_) => "PREFIX_TUNING",
        }
    }

    /// The method as ours, with every site written out.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_adapter`) where the rules mean something that we do not change.
    pub fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<adapter::Config> {
        let is_linear = |info: &SiteInfo| info.site.module.is_linear();
        Ok(match self {
            Self::Lora(lora) => adapter::Config::Lora(lora.to_config(sites, naming)?),
            Self::Ia3 { targets: rules, feedforward_modules: feed_forward } => adapter::Config::Ia3(ia3::Config {
                target_modules: required_target_modules(sites, |info| {
                    is_linear(info) && rules.matches(naming.strip_prefix(&info.module_path))
                })?,
                feed_forward_modules: target_modules(sites, |info| {
                    let path = naming.strip_prefix(&info.module_path);
                    let is_feedforward = feed_forward.as_ref().is_some_and(|matcher| matcher.matches(path));
                    is_linear(info) && rules.matches(path) && is_feedforward
                }),
                ..ia3::Config::default()
            }),
            Self::LayerNorm(rules) => adapter::Config::LayerNorm(layer_norm::Config {
                target_modules: Some(required_target_modules(sites, |info| {
                    !is_linear(info) && rules.matches(naming.strip_prefix(&info.module_path))
                })?),
                ..layer_norm::Config::default()
            }),
            Self::Vera(vera) => adapter::Config::Vera(vera::Config {
                rank: vera.rank,
                d_initial: vera.d_initial,
                dropout: vera.dropout,
                projection_seed: vera.projection_seed,
                target_modules: required_target_modules(sites, |info| {
                    is_linear(info) && vera.targets.matches(naming.strip_prefix(&info.module_path))
                })?,
                ..vera::Config::default()
            }),
            Self::PromptTuning(count) => adapter::Config::PromptTuning(prompt_tuning::Config {
                num_virtual_tokens: *count,
                ..prompt_tuning::Config::default()
            }),
            Self::PTuning(count) => {
                adapter::Config::PTuning(p_tuning::Config { num_virtual_tokens: *count, ..p_tuning::Config::default() })
            }
            Self::PrefixTuning(count) => adapter::Config::PrefixTuning(prefix_tuning::Config {
                num_virtual_tokens: *count,
                ..prefix_tuning::Config::default()
            }),
        })
    }
}

impl LoraFields {
    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        let alpha = f64_field(fields, "lora_alpha")?
            .ok_or_else(|| invalid_config("lora_alpha must be a number".to_string()))?;
        let bias = match fields.get("bias").and_then(Value::as_str) {
            Some("lora_only") => lora::BiasKind::LoraOnly,
            _ => lora::BiasKind::None,
        };
        Ok(Self {
            rank: positive_integer(fields, "r")?,
            alpha,
            dropout: dropout_field(fields, "lora_dropout")?,
            use_rslora: bool_field(fields, "use_rslora")?,
            use_dora: bool_field(fields, "use_dora")?,
            bias,
            targets: TargetSelector::from_fields(fields)?,
            rank_pattern: pattern_field(fields, "rank_pattern", |value| {
                value.as_u64().filter(|rank| *rank > 0).and_then(|rank| usize::try_from(rank).ok())
            })?,
            alpha_pattern: pattern_field(fields, "alpha_pattern", Value::as_f64)?,
        })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<lora::Config> {
        let is_target = |info: &SiteInfo| {
            info.site.module.is_linear() && self.targets.matches(naming.strip_prefix(&info.module_path))
        };
        let targets: Vec<&SiteInfo> = sites.iter().filter(|info| is_target(info)).collect();
        Ok(lora::Config {
            rank: self.rank,
            alpha: Some(self.alpha),
            dropout: self.dropout,
            rslora: self.use_rslora,
            dora: self.use_dora,
            bias: self.bias,
            rank_pattern: expand_pattern("rank_pattern", &self.rank_pattern, &targets, naming)?,
            alpha_pattern: expand_pattern("alpha_pattern", &self.alpha_pattern, &targets, naming)?,
            target_modules: required_target_modules(sites, is_target)?,
            ..lora::Config::default()
        })
    }
}

impl VeraFields {
    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self {
            rank: positive_integer(fields, "r")?,
            projection_seed: fields.get("projection_prng_key").and_then(Value::as_u64).unwrap_or(0),
            d_initial: f64_field(fields, "d_initial")?.unwrap_or(0.1),
            dropout: dropout_field(fields, "vera_dropout")?,
            targets: TargetSelector::from_fields(fields)?,
        })
    }
}

fn dropout_field(fields: &Map<String, Value>, field: &str) -> Result<f64> {
    let dropout = f64_field(fields, field)?.unwrap_or(0.0);
    match (0.0..1.0).contains(&dropout) {
        true => Ok(dropout),
        false => Err(invalid_config(format!("{field} must be at least 0 and less than 1"))),
    }
}

fn pattern_field<T>(
    fields: &Map<String, Value>,
    field: &str,
    parse_value: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>> {
    let invalid_pattern =
        || invalid_config(format!("{field} must be an object from names of modules to numbers above 0"));
    match fields.get(field) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => {
            let parse_entry = |(name, value): (&String, &Value)| Some((name.clone(), parse_value(value)?));
            entries.iter().map(parse_entry).collect::<Option<_>>().ok_or_else(invalid_pattern)
        }
        Some(_) => Err(invalid_pattern()),
    }
}

/// A pattern's entries by whole paths: PEFT takes the first of several that match, which an object does not say.
fn expand_pattern<T: Copy + PartialEq>(
    field: &str,
    patterns: &BTreeMap<String, T>,
    targets: &[&SiteInfo],
    naming: ModuleNaming,
) -> Result<BTreeMap<String, T>> {
    let mut by_path = BTreeMap::new();
    for info in targets {
        for (name, value) in patterns {
            let is_match = Matcher::full_match(field, &format!(r"(?:.*\.)?(?:{name})"))?
                .matches(naming.strip_prefix(&info.module_path));
            if is_match && by_path.insert(info.module_path.clone(), *value).is_some_and(|before| before != *value) {
                let detail = format!(
                    "adapter_config.json: several entries of {field} mean {}: leave one",
                    naming.strip_prefix(&info.module_path)
                );
                return Err(Error::invalid("unsupported_adapter", detail));
            }
        }
    }
    Ok(by_path)
}

/// As [`modules`], of which there must be some.
fn required_target_modules(sites: &[SiteInfo], is_target: impl Fn(&SiteInfo) -> bool) -> Result<TargetModules> {
    match sites.iter().any(&is_target) {
        true => Ok(target_modules(sites, is_target)),
        false => Err(Error::invalid(
            "unsupported_adapter",
            "adapter_config.json: target_modules means no module of this base that the method changes",
        )),
    }
}

/// Our module names where every layer is touched, else whole paths.
fn target_modules(sites: &[SiteInfo], is_target: impl Fn(&SiteInfo) -> bool) -> TargetModules {
    let modules: BTreeSet<Module> = sites.iter().filter(|info| is_target(info)).map(|info| info.site.module).collect();
    TargetModules::Names(match sites.iter().filter(|info| modules.contains(&info.site.module)).all(&is_target) {
        true => modules.into_iter().map(|module| module.name().to_string()).collect(),
        false => sites.iter().filter(|info| is_target(info)).map(|info| info.module_path.clone()).collect(),
    })
}
