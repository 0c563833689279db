//! What is trained: one file per method, each knowing the base only by its sites.
//!
//! Knows nothing of tasks, files or training. A method is a variant of [`Config`]; that one derive parses a request,
//! validates it, stores it and documents it.

pub mod bias;
pub mod bottleneck;
pub mod head;
pub mod ia3;
pub mod layer_norm;
pub mod lora;
pub mod p_tuning;
pub mod parameters;
pub mod prefix_tuning;
pub mod prompt_tuning;
pub mod targets;
pub mod vera;
pub mod virtual_tokens;

use crate::error::Result;
use crate::model::{Base, Hooks, Pooling, SiteInfo};
use espalier_tensor::{Recording, Tape, Tensor};
pub use parameters::{Init, Parameters};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// The method of an adaptation job, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Method)]
pub enum Config {
    Lora(lora::Config),
    Ia3(ia3::Config),
    PromptTuning(prompt_tuning::Config),
    PTuning(p_tuning::Config),
    PrefixTuning(prefix_tuning::Config),
    Bottleneck(bottleneck::Config),
    Bias(bias::Config),
    LayerNorm(layer_norm::Config),
    Vera(vera::Config),
    Head(head::Config),
}

/// The words that `type` may be.
pub const NAMES: [&str; 10] =
    ["lora", "ia3", "prompt_tuning", "p_tuning", "prefix_tuning", "bottleneck", "bias", "layer_norm", "vera", "head"];

impl Default for Config {
    fn default() -> Self {
        Self::Lora(lora::Config::default())
    }
}

/// Which of an adapter's tensors there are: some methods train through a network that is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Training,
    Published,
}

/// What a method is built on.
pub struct Ground<'a> {
    pub base: &'a Base,
    /// Those of the task's pooling.
    pub sites: &'a [SiteInfo],
    pub form: Form,
}

impl Config {
    /// The word in `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Ia3(_) => "ia3",
            Self::PromptTuning(_) => "prompt_tuning",
            Self::PTuning(_) => "p_tuning",
            Self::PrefixTuning(_) => "prefix_tuning",
            Self::Bottleneck(_) => "bottleneck",
            Self::Bias(_) => "bias",
            Self::LayerNorm(_) => "layer_norm",
            Self::Vera(_) => "vera",
            Self::Head(_) => "head",
        }
    }

    /// Checks the settings against the base and writes out every default, so that what is stored with a job says all that
    /// matters.
    ///
    /// # Errors
    /// `Invalid` naming the setting and what would be right.
    pub fn resolve(&self, base: &Base, pooling: Pooling) -> Result<Self> {
        let sites = &base.sites(pooling);
        let (max_tokens, hidden) = (base.info().max_tokens, base.info().hidden_size);
        Ok(match self {
            Self::Lora(config) => Self::Lora(config.resolve(sites)?),
            Self::Ia3(config) => Self::Ia3(config.resolve(sites)?),
            Self::PromptTuning(config) => Self::PromptTuning(config.resolve(sites, max_tokens)?),
            Self::PTuning(config) => Self::PTuning(config.resolve(sites, max_tokens, hidden)?),
            Self::PrefixTuning(config) => Self::PrefixTuning(config.resolve(sites, max_tokens)?),
            Self::Bottleneck(config) => Self::Bottleneck(config.resolve(sites)?),
            Self::Bias(config) => Self::Bias(config.resolve(sites)?),
            Self::LayerNorm(config) => Self::LayerNorm(config.resolve(sites)?),
            Self::Vera(config) => Self::Vera(config.resolve(sites)?),
            Self::Head(config) => Self::Head(config.resolve(sites)?),
        })
    }

    /// Builds the method on the sites it touches; its tensors are drawn or restored by `parameters`.
    ///
    /// # Errors
    /// `Invalid` where what it is to start from cannot be made; else what the device reports.
    pub fn build(&self, ground: &Ground, parameters: &mut Parameters) -> Result<Box<dyn Hooks>> {
        Ok(match self {
            Self::Lora(config) => Box::new(lora::Lora::build(config, ground, parameters)?),
            Self::Ia3(config) => Box::new(ia3::Ia3::build(config, ground, parameters)),
            Self::PromptTuning(config) => Box::new(config.build(ground, parameters)?),
            Self::PTuning(config) => Box::new(config.build(ground, parameters)),
            Self::PrefixTuning(config) => Box::new(config.build(ground, parameters)?),
            Self::Bottleneck(config) => Box::new(bottleneck::Bottleneck::build(config, ground, parameters)),
            Self::Bias(config) => Box::new(bias::Bias::build(config, ground, parameters)?),
            Self::LayerNorm(config) => Box::new(layer_norm::LayerNorm::build(config, ground, parameters)?),
            Self::Vera(config) => Box::new(vera::Vera::build(config, ground, parameters)?),
            Self::Head(_) => Box::new(()),
        })
    }

    /// Tokens of a sequence's room that the method takes.
    pub fn virtual_tokens(&self) -> usize {
        match self {
            Self::PromptTuning(config) => config.num_virtual_tokens,
            Self::PTuning(config) => config.num_virtual_tokens,
            Self::PrefixTuning(config) => config.num_virtual_tokens,
            _ => 0,
        }
    }

    /// Whether a fresh adapter leaves the base's answers as they are, to the bit. DoRA's rows are only nearly the base's: it
    /// divides by the length that it multiplies by.
    pub fn starts_neutral(&self) -> bool {
        self.virtual_tokens() == 0 && !matches!(self, Self::Lora(config) if config.dora)
    }

    /// The dropout of the rows that the head reads; none where the method has inputs of its own to drop.
    pub fn dropout_of_rows(&self) -> f64 {
        match self {
            Self::Lora(_) | Self::Vera(_) | Self::Bottleneck(_) => 0.0,
            Self::Ia3(config) => config.dropout,
            Self::PromptTuning(config) => config.dropout,
            Self::PTuning(config) => config.dropout,
            Self::PrefixTuning(config) => config.dropout,
            Self::Bias(config) => config.dropout,
            Self::LayerNorm(config) => config.dropout,
            Self::Head(config) => config.dropout,
        }
    }

    /// The learning rate of a tensor as a multiple of the job's.
    pub fn learning_rate_ratio(&self, tensor: &str) -> f64 {
        match self {
            Self::Lora(config) if tensor.ends_with(".lora_B") => config.learning_rate_ratio,
            _ => 1.0,
        }
    }

    /// The method's own published tensors, from those that were trained.
    pub fn published(
        &self,
        base: &Base,
        pooling: Pooling,
        mut weights: BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>> {
        let sites = base.sites(pooling);
        let ground = Ground { base, sites: &sites, form: Form::Training };
        let is_encoder = |name: &String| name.starts_with("encoder.") || name.contains(".prefix_");
        match self {
            Self::PTuning(config) => {
                let own = split_off(&mut weights, is_encoder);
                let mut parameters = Parameters::restore(own);
                let prompt = config.build(&ground, &mut parameters);
                let mut tape = tape(base, parameters)?;
                let rows = prompt.rows(&mut tape)?;
                weights.insert(virtual_tokens::NAME.to_string(), tape.read(rows)?);
            }
            Self::PrefixTuning(config) if config.projection_hidden_size.is_some() => {
                let own = split_off(&mut weights, is_encoder);
                let mut parameters = Parameters::restore(own);
                let prefix = config.build(&ground, &mut parameters)?;
                let mut tape = tape(base, parameters)?;
                weights.extend(prefix.published(&mut tape)?);
            }
            _ => {}
        }
        Ok(weights)
    }
}

fn split_off(weights: &mut BTreeMap<String, Tensor>, is: impl Fn(&String) -> bool) -> BTreeMap<String, Tensor> {
    let (own, others) = std::mem::take(weights).into_iter().partition(|(name, _)| is(name));
    *weights = others;
    own
}

fn tape(base: &Base, parameters: Parameters) -> Result<Tape> {
    let uploaded = base.kernels().parameters(&parameters.finish()?.tensors)?;
    Ok(Tape::new(Arc::clone(base.kernels()), uploaded, Recording::Off))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_known_by_its_name_alone() {
        for name in NAMES {
            let config: Config = serde_json::from_value(serde_json::json!({"type": name})).unwrap();
            assert_eq!(config.name(), name);
        }
        let refused = serde_json::from_str::<Config>(r#"{"type": "none"}"#).unwrap_err().to_string();
        assert!(NAMES.iter().all(|name| refused.contains(&format!("`{name}`"))), "{refused}");
    }
}
