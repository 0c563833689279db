//! What an `adapter_config.json` says of its method, by `peft_type`, and what that is on a base.

use super::config::{flag, number, unreadable, whole};
use super::keys::Form;
use super::targets::{Matcher, Rules};
use crate::adapter::targets::TargetModules;
use crate::adapter::{self, ia3, layer_norm, lora, p_tuning, prefix_tuning, prompt_tuning, vera};
use crate::error::{Error, Result};
use crate::model::{Module, SiteInfo};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub enum Method {
    Lora(Box<Lora>),
    Ia3 { rules: Rules, feed_forward: Option<Matcher> },
    LayerNorm(Rules),
    Vera(Vera),
    PromptTuning(usize),
    PTuning(usize),
    PrefixTuning(usize),
}

#[derive(Debug, Clone)]
pub struct Lora {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    pub rslora: bool,
    pub dora: bool,
    pub bias: lora::BiasKind,
    pub rules: Rules,
    /// By names that are matched as those of a list are.
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

#[derive(Debug, Clone)]
pub struct Vera {
    pub rank: usize,
    pub seed: u64,
    pub d_initial: f64,
    pub dropout: f64,
    pub rules: Rules,
}

/// The `peft_type`s that can be read.
pub const TYPES: [&str; 7] = ["LORA", "IA3", "LN_TUNING", "VERA", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"];

impl Method {
    /// # Errors
    /// `Invalid` (`unreadable_adapter`, `unsupported_adapter`) naming the field.
    pub fn read(peft_type: &str, fields: &Map<String, Value>) -> Result<Self> {
        let count = || whole(fields, "num_virtual_tokens");
        Ok(match peft_type {
            "LORA" => Self::Lora(Box::new(Lora::read(fields)?)),
            "IA3" => {
                Self::Ia3 { rules: Rules::read(fields)?, feed_forward: Matcher::read(fields, "feedforward_modules")? }
            }
            "LN_TUNING" => Self::LayerNorm(Rules::read(fields)?),
            "VERA" => Self::Vera(Vera::read(fields)?),
            "PROMPT_TUNING" => Self::PromptTuning(count()?),
            "P_TUNING" => Self::PTuning(count()?),
            "PREFIX_TUNING" => Self::PrefixTuning(count()?),
            other => return Err(unreadable(format!("peft_type is {other:?}"))),
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
    pub fn on(&self, sites: &[SiteInfo], form: Form) -> Result<adapter::Config> {
        let linear = |info: &SiteInfo| info.site.module.is_linear();
        Ok(match self {
            Self::Lora(lora) => adapter::Config::Lora(lora.on(sites, form)?),
            Self::Ia3 { rules, feed_forward } => adapter::Config::Ia3(ia3::Config {
                target_modules: targets(sites, |info| linear(info) && rules.matches(form.path(&info.path)))?,
                feed_forward_modules: modules(sites, |info| {
                    let path = form.path(&info.path);
                    let is_forward = feed_forward.as_ref().is_some_and(|matcher| matcher.matches(path));
                    linear(info) && rules.matches(path) && is_forward
                }),
                ..ia3::Config::default()
            }),
            Self::LayerNorm(rules) => adapter::Config::LayerNorm(layer_norm::Config {
                target_modules: Some(targets(sites, |info| !linear(info) && rules.matches(form.path(&info.path)))?),
                ..layer_norm::Config::default()
            }),
            Self::Vera(vera) => adapter::Config::Vera(vera::Config {
                rank: vera.rank,
                d_initial: vera.d_initial,
                dropout: vera.dropout,
                projection_seed: vera.seed,
                target_modules: targets(sites, |info| linear(info) && vera.rules.matches(form.path(&info.path)))?,
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

impl Lora {
    fn read(fields: &Map<String, Value>) -> Result<Self> {
        let alpha =
            number(fields, "lora_alpha")?.ok_or_else(|| unreadable("lora_alpha must be a number".to_string()))?;
        let bias = match fields.get("bias").and_then(Value::as_str) {
            Some("lora_only") => lora::BiasKind::LoraOnly,
            _ => lora::BiasKind::None,
        };
        Ok(Self {
            rank: whole(fields, "r")?,
            alpha,
            dropout: dropout(fields, "lora_dropout")?,
            rslora: flag(fields, "use_rslora")?,
            dora: flag(fields, "use_dora")?,
            bias,
            rules: Rules::read(fields)?,
            rank_pattern: pattern(fields, "rank_pattern", |value| {
                value.as_u64().filter(|rank| *rank > 0).and_then(|rank| usize::try_from(rank).ok())
            })?,
            alpha_pattern: pattern(fields, "alpha_pattern", Value::as_f64)?,
        })
    }

    fn on(&self, sites: &[SiteInfo], form: Form) -> Result<lora::Config> {
        let is_meant = |info: &SiteInfo| info.site.module.is_linear() && self.rules.matches(form.path(&info.path));
        let touched: Vec<&SiteInfo> = sites.iter().filter(|info| is_meant(info)).collect();
        Ok(lora::Config {
            rank: self.rank,
            alpha: Some(self.alpha),
            dropout: self.dropout,
            rslora: self.rslora,
            dora: self.dora,
            bias: self.bias,
            rank_pattern: by_site("rank_pattern", &self.rank_pattern, &touched, form)?,
            alpha_pattern: by_site("alpha_pattern", &self.alpha_pattern, &touched, form)?,
            target_modules: targets(sites, is_meant)?,
            ..lora::Config::default()
        })
    }
}

impl Vera {
    fn read(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self {
            rank: whole(fields, "r")?,
            seed: fields.get("projection_prng_key").and_then(Value::as_u64).unwrap_or(0),
            d_initial: number(fields, "d_initial")?.unwrap_or(0.1),
            dropout: dropout(fields, "vera_dropout")?,
            rules: Rules::read(fields)?,
        })
    }
}

fn dropout(fields: &Map<String, Value>, field: &str) -> Result<f64> {
    let dropout = number(fields, field)?.unwrap_or(0.0);
    match (0.0..1.0).contains(&dropout) {
        true => Ok(dropout),
        false => Err(unreadable(format!("{field} must be at least 0 and less than 1"))),
    }
}

fn pattern<T>(
    fields: &Map<String, Value>,
    field: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>> {
    let wrong = || unreadable(format!("{field} must be an object from names of modules to numbers above 0"));
    match fields.get(field) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => {
            let entry = |(name, value): (&String, &Value)| Some((name.clone(), read(value)?));
            entries.iter().map(entry).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

/// A pattern's entries by whole paths: PEFT takes the first of several that match, which an object does not say.
fn by_site<T: Copy + PartialEq>(
    field: &str,
    patterns: &BTreeMap<String, T>,
    touched: &[&SiteInfo],
    form: Form,
) -> Result<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    for info in touched {
        for (name, value) in patterns {
            let is_meant = Matcher::pattern(field, &format!(r"(?:.*\.)?(?:{name})"))?.matches(form.path(&info.path));
            if is_meant && found.insert(info.path.clone(), *value).is_some_and(|before| before != *value) {
                let detail = format!(
                    "adapter_config.json: several entries of {field} mean {}: leave one",
                    form.path(&info.path)
                );
                return Err(Error::invalid("unsupported_adapter", detail));
            }
        }
    }
    Ok(found)
}

/// As [`modules`], of which there must be some.
fn targets(sites: &[SiteInfo], is_touched: impl Fn(&SiteInfo) -> bool) -> Result<TargetModules> {
    match sites.iter().any(&is_touched) {
        true => Ok(modules(sites, is_touched)),
        false => Err(Error::invalid(
            "unsupported_adapter",
            "adapter_config.json: target_modules means no module of this base that the method changes",
        )),
    }
}

/// Our module names where every layer is touched, else whole paths.
fn modules(sites: &[SiteInfo], is_touched: impl Fn(&SiteInfo) -> bool) -> TargetModules {
    let touched: BTreeSet<Module> = sites.iter().filter(|info| is_touched(info)).map(|info| info.site.module).collect();
    TargetModules::Names(match sites.iter().filter(|info| touched.contains(&info.site.module)).all(&is_touched) {
        true => touched.into_iter().map(|module| module.name().to_string()).collect(),
        false => sites.iter().filter(|info| is_touched(info)).map(|info| info.path.clone()).collect(),
    })
}
