//! Rotary positions beyond the length that a model was first trained on: how its config stretches them.

use crate::error::Result;
use crate::model::architecture;
use espalier_tensor::Backend;
use espalier_tensor::rotary::{self, RotaryTable};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// `rope_parameters` of transformers 5, `rope_scaling` of older ones.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RawRopeConfig {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    #[serde(rename = "type")]
    legacy_rope_type: Option<String>,
    factor: Option<f64>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    /// No field of transformers': a GGUF file may say what angles are divided by.
    factors: Option<Vec<f64>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RopeConfig {
    theta: f64,
    scaling: RopeScaling,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum RopeScaling {
    #[serde(rename = "none")]
    Unscaled,
    /// All angles are divided (Chen et al. 2023).
    Linear { factor: f64 },
    /// Slow angles are divided, fast ones are not (Llama 3.1).
    Llama3 {
        factor: f64,
        #[serde(rename = "low")]
        low_freq_factor: f64,
        #[serde(rename = "high")]
        high_freq_factor: f64,
        #[serde(rename = "original")]
        original_max_positions: f64,
    },
    /// Every angle is divided by its own number, as llama.cpp has it.
    #[serde(rename = "factors")]
    PerPair { factors: Vec<f64> },
    /// The same by how often an angle turns, and scores are scaled (Peng et al. 2023).
    Yarn {
        factor: f64,
        #[serde(rename = "attention")]
        attention_factor: f64,
        #[serde(rename = "fast")]
        beta_fast: f64,
        #[serde(rename = "slow")]
        beta_slow: f64,
        #[serde(rename = "original")]
        original_max_positions: f64,
        truncate: bool,
    },
}

impl RawRopeConfig {
    /// `theta` is the config's own, which older ones have beside it; `longest` the tokens that it says it reads.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_model`) for what is not computed.
    pub fn resolve(&self, model_type: &str, theta: Option<f64>, max_position_embeddings: usize) -> Result<RopeConfig> {
        if self.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
            return architecture::unsupported_model(format!("partial_rotary_factor is not supported for {model_type}"));
        }
        let rope_type = self.rope_type.as_deref().or(self.legacy_rope_type.as_deref()).unwrap_or("default");
        let require_positive = |field: &str, value: Option<f64>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            _ => architecture::unsupported_model(format!("rope_type \"{rope_type}\" needs a {field} above 0")),
        };
        let original = self.original_max_position_embeddings.or(Some(max_position_embeddings as f64));
        let scaling = match rope_type {
            "default" => RopeScaling::Unscaled,
            "linear" => RopeScaling::Linear { factor: require_positive("factor", self.factor)? },
            "llama3" => RopeScaling::Llama3 {
                factor: require_positive("factor", self.factor)?,
                low_freq_factor: require_positive("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: require_positive("high_freq_factor", self.high_freq_factor)?,
                original_max_positions: require_positive("original_max_position_embeddings", original)?,
            },
            "factors" => {
                let each = self
                    .factors
                    .iter()
                    .flatten()
                    .map(|factor| require_positive("factor for every pair", Some(*factor)));
                RopeScaling::PerPair { factors: each.collect::<Result<_>>()? }
            }
            "yarn" => {
                let original = require_positive("original_max_position_embeddings", original)?;
                let factor =
                    require_positive("factor", self.factor.or(Some(max_position_embeddings as f64 / original)))?;
                RopeScaling::Yarn {
                    factor,
                    attention_factor: self.attention_factor.unwrap_or_else(|| self.default_attention_factor(factor)),
                    beta_fast: self.beta_fast.unwrap_or(32.0),
                    beta_slow: self.beta_slow.unwrap_or(1.0),
                    original_max_positions: original,
                    truncate: self.truncate.unwrap_or(true),
                }
            }
            other => {
                return architecture::unsupported_model(format!(
                    "rope_type \"{other}\" is not supported for {model_type}"
                ));
            }
        };
        let theta = require_positive("rope_theta", self.rope_theta.or(theta).or(Some(10_000.0)))?;
        Ok(RopeConfig { theta, scaling })
    }

    /// What cosines and sines are multiplied by where the config does not say it.
    fn default_attention_factor(&self, factor: f64) -> f64 {
        let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        match (self.mscale, self.mscale_all_dim) {
            (Some(own), Some(all)) if own != 0.0 && all != 0.0 => scale(own) / scale(all),
            _ => scale(1.0),
        }
    }
}

impl RopeConfig {
    pub fn rotary_table(&self, backend: &dyn Backend, max_positions: usize, head_dim: usize) -> Result<RotaryTable> {
        let unscaled = rotary::inverse_frequencies(self.theta, head_dim);
        let (frequencies, scale): (Vec<f64>, f64) = match &self.scaling {
            RopeScaling::Unscaled => (unscaled, 1.0),
            RopeScaling::Linear { factor } => (unscaled.iter().map(|frequency| frequency / factor).collect(), 1.0),
            RopeScaling::PerPair { factors } if factors.len() == unscaled.len() => {
                (unscaled.iter().zip(factors).map(|(frequency, factor)| frequency / factor).collect(), 1.0)
            }
            RopeScaling::PerPair { factors } => {
                let (given, pairs) = (factors.len(), unscaled.len());
                return architecture::unsupported_model(format!(
                    "rope factors: there are {given}, but {pairs} pairs turn"
                ));
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_positions: original,
            } => {
                let scaled = |frequency: &f64| {
                    // How often it turns within the original length.
                    let turns = original * frequency / TAU;
                    let smooth_factor = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - smooth_factor) * frequency / factor + smooth_factor * frequency
                };
                (unscaled.iter().map(scaled).collect(), 1.0)
            }
            RopeScaling::Yarn {
                factor,
                attention_factor: attention,
                beta_fast: fast,
                beta_slow: slow,
                original_max_positions: original,
                truncate,
            } => {
                let width = head_dim as f64;
                // The pair that turns so often within the original length.
                let pair_with_rotations =
                    |turns: f64| width * (original / (turns * TAU)).ln() / (2.0 * self.theta.ln());
                let (mut low_pair, mut high_pair) = (pair_with_rotations(*fast), pair_with_rotations(*slow));
                if *truncate {
                    (low_pair, high_pair) = (low_pair.floor(), high_pair.ceil());
                }
                let (first, end) = (low_pair.max(0.0), high_pair.min(width - 1.0));
                let end = if end == first { end + 0.001 } else { end };
                let scaled = |(index, frequency): (usize, &f64)| {
                    let ramp = ((index as f64 - first) / (end - first)).clamp(0.0, 1.0);
                    ramp * frequency / factor + (1.0 - ramp) * frequency
                };
                (unscaled.iter().enumerate().map(scaled).collect(), *attention)
            }
        };
        Ok(RotaryTable::new(backend, max_positions, &frequencies, scale)?)
    }
}
