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
pub mod parameter_builder;
pub mod prefix_tuning;
pub mod prompt_tuning;
pub mod targets;
pub mod vera;
pub mod virtual_tokens;

use crate::error::Result;
use crate::model::{BaseModel, Hooks, Pooling, SiteInfo};
use espalier_tensor::{Recording, Tape, Tensor};
pub use parameter_builder::{ParameterBuilder, TensorInit};
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
pub const METHOD_NAMES: [&str; 10] =
    ["lora", "ia3", "prompt_tuning", "p_tuning", "prefix_tuning", "bottleneck", "bias", "layer_norm", "vera", "head"];

impl Default for Config {
    fn default() -> Self {
        Self::Lora(lora::Config::default())
    }
}

/// Which of an adapter's tensors there are: some methods train through a network that is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorSet {
    Training,
    Inference,
}

/// What a method is built on.
pub struct BuildContext<'a> {
    pub base: &'a BaseModel,
    /// Those of the task's pooling.
    pub sites: &'a [SiteInfo],
    pub tensor_set: TensorSet,
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
    pub fn resolve(&self, base: &BaseModel, pooling: Pooling) -> Result<Self> {
        let sites = &base.sites(pooling);
        let (max_tokens, hidden_size) = (base.info().max_tokens, base.info().hidden_size);
        Ok(match self {
            Self::Lora(config) => Self::Lora(config.resolve(sites)?),
            Self::Ia3(config) => Self::Ia3(config.resolve(sites)?),
            Self::PromptTuning(config) => Self::PromptTuning(config.resolve(sites, max_tokens)?),
            Self::PTuning(config) => Self::PTuning(config.resolve(sites, max_tokens, hidden_size)?),
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
    pub fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        Ok(match self {
            Self::Lora(config) => Box::new(lora::Lora::build(config, context, builder)?),
            Self::Ia3(config) => Box::new(ia3::Ia3::build(config, context, builder)),
            Self::PromptTuning(config) => Box::new(config.build(context, builder)?),
            Self::PTuning(config) => Box::new(config.build(context, builder)),
            Self::PrefixTuning(config) => Box::new(config.build(context, builder)?),
            Self::Bottleneck(config) => Box::new(bottleneck::Bottleneck::build(config, context, builder)),
            Self::Bias(config) => Box::new(bias::Bias::build(config, context, builder)?),
            Self::LayerNorm(config) => Box::new(layer_norm::LayerNorm::build(config, context, builder)?),
            Self::Vera(config) => Box::new(vera::Vera::build(config, context, builder)?),
            Self::Head(_) => Box::new(()),
        })
    }

    /// Tokens of a sequence's room that the method takes.
    pub fn num_virtual_tokens(&self) -> usize {
        match self {
            Self::PromptTuning(config) => config.num_virtual_tokens,
            Self::PTuning(config) => config.num_virtual_tokens,
            Self::PrefixTuning(config) => config.num_virtual_tokens,
            _ => 0,
        }
    }

    /// Whether a fresh adapter leaves the base's answers as they are, to the bit. DoRA's rows are only nearly the base's: it
    /// divides by the length that it multiplies by.
    pub fn is_identity_at_init(&self) -> bool {
        self.num_virtual_tokens() == 0 && !matches!(self, Self::Lora(config) if config.dora)
    }

    /// The dropout of the rows that the head reads; none where the method has inputs of its own to drop.
    pub fn head_dropout(&self) -> f64 {
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
    pub fn inference_weights(
        &self,
        base: &BaseModel,
        pooling: Pooling,
        mut weights: BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>> {
        let sites = base.sites(pooling);
        let context = BuildContext { base, sites: &sites, tensor_set: TensorSet::Training };
        let is_encoder_tensor = |name: &String| name.starts_with("encoder.") || name.contains(".prefix_");
        match self {
            Self::PTuning(config) => {
                let encoder_weights = extract_matching(&mut weights, is_encoder_tensor);
                let mut builder = ParameterBuilder::from_weights(encoder_weights);
                let prompt = config.build(&context, &mut builder);
                let mut inference_tape = inference_tape(base, builder)?;
                let rows = prompt.embeddings(&mut inference_tape)?;
                weights.insert(virtual_tokens::PROMPT_TENSOR_NAME.to_string(), inference_tape.to_host(rows)?);
            }
            Self::PrefixTuning(config) if config.projection_hidden_size.is_some() => {
                let encoder_weights = extract_matching(&mut weights, is_encoder_tensor);
                let mut builder = ParameterBuilder::from_weights(encoder_weights);
                let prefix = config.build(&context, &mut builder)?;
                let mut inference_tape = inference_tape(base, builder)?;
                weights.extend(prefix.inference_tensors(&mut inference_tape)?);
            }
            _ => {}
        }
        Ok(weights)
    }
}

fn extract_matching(
    weights: &mut BTreeMap<String, Tensor>,
    predicate: impl Fn(&String) -> bool,
) -> BTreeMap<String, Tensor> {
    let (matching, remaining) = std::mem::take(weights).into_iter().partition(|(name, _)| predicate(name));
    *weights = remaining;
    matching
}

fn inference_tape(base: &BaseModel, builder: ParameterBuilder) -> Result<Tape> {
    let device_parameters = base.backend().upload_parameters(&builder.build()?.tensors)?;
    Ok(Tape::new(Arc::clone(base.backend()), device_parameters, Recording::Off))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_parses_from_its_name() {
        for name in METHOD_NAMES {
            let config: Config = serde_json::from_value(serde_json::json!({"type": name})).unwrap();
            assert_eq!(config.name(), name);
        }
        let message = serde_json::from_str::<Config>(r#"{"type": "none"}"#).unwrap_err().to_string();
        assert!(METHOD_NAMES.iter().all(|name| message.contains(&format!("`{name}`"))), "{message}");
    }
}
