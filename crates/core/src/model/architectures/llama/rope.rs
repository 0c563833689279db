//! Scaling of rotary embeddings beyond the training length: linear, Llama 3, YaRN, and one factor per pair.

use crate::error::Result;
use crate::model::config_checks;
use espalier_tensor::Backend;
use espalier_tensor::rotary::{self, RotaryTable};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// `rope_parameters` of transformers 5, `rope_scaling` of older versions.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RawRopeConfig {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// Older name of `rope_type`.
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
    /// Divisors of the frequencies. Set for GGUF files only; not a field of transformers.
    factors: Option<Vec<f64>>,
}

/// Rotary position embeddings of a checkpoint: base frequency and scaling.
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
    /// Divides all frequencies (Chen et al. 2023).
    Linear { factor: f64 },
    /// Divides low frequencies and keeps high ones (Llama 3.1).
    Llama3 {
        factor: f64,
        #[serde(rename = "low")]
        low_freq_factor: f64,
        #[serde(rename = "high")]
        high_freq_factor: f64,
        #[serde(rename = "original")]
        original_max_positions: f64,
    },
    /// Divides each frequency by its own factor, as llama.cpp does.
    #[serde(rename = "factors")]
    PerPair { factors: Vec<f64> },
    /// YaRN (Peng et al. 2023): divides frequencies by their number of rotations, and scales attention scores.
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
    /// `theta` is `rope_theta` of the config itself, where older configs have it.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_model`) for an unsupported or incomplete scaling.
    pub fn resolve(&self, model_type: &str, theta: Option<f64>, max_position_embeddings: usize) -> Result<RopeConfig> {
        if self.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
            return config_checks::unsupported_model(format!(
                "partial_rotary_factor is not supported for {model_type}"
            ));
        }
        let rope_type = self.rope_type.as_deref().or(self.legacy_rope_type.as_deref()).unwrap_or("default");
        let require_positive = |field: &str, value: Option<f64>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            _ => config_checks::unsupported_model(format!("rope_type \"{rope_type}\" needs a {field} above 0")),
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
                return config_checks::unsupported_model(format!(
                    "rope_type \"{other}\" is not supported for {model_type}"
                ));
            }
        };
        let theta = require_positive("rope_theta", self.rope_theta.or(theta).or(Some(10_000.0)))?;
        Ok(RopeConfig { theta, scaling })
    }

    /// Default factor of cosines and sines in YaRN.
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
                return config_checks::unsupported_model(format!(
                    "rope factors: there are {given}, but {pairs} pairs are rotated"
                ));
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                let scaled = |frequency: &f64| {
                    let rotations = original_max_positions * frequency / TAU;
                    let smooth_factor =
                        ((rotations - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    (1.0 - smooth_factor) * frequency / factor + smooth_factor * frequency
                };
                (unscaled.iter().map(scaled).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, attention_factor, beta_fast, beta_slow, original_max_positions, truncate } => {
                // Index of the pair with this number of rotations within the original length.
                let pair_with_rotations = |rotations: f64| {
                    head_dim as f64 * (original_max_positions / (rotations * TAU)).ln() / (2.0 * self.theta.ln())
                };
                let bounds = [pair_with_rotations(*beta_fast), pair_with_rotations(*beta_slow)];
                let bounds = if *truncate { [bounds[0].floor(), bounds[1].ceil()] } else { bounds };
                (yarn_frequencies(&unscaled, *factor, bounds), *attention_factor)
            }
        };
        Ok(RotaryTable::new(backend, max_positions, &frequencies, scale)?)
    }
}

/// Divides the frequencies of pairs from `high_pair` on by `factor`, keeps those below `low_pair`, and interpolates in between.
fn yarn_frequencies(unscaled: &[f64], factor: f64, [low_pair, high_pair]: [f64; 2]) -> Vec<f64> {
    let head_dim = 2.0 * unscaled.len() as f64;
    let (start, end) = (low_pair.max(0.0), high_pair.min(head_dim - 1.0));
    let end = if end == start { end + 0.001 } else { end };
    let scaled = |(index, frequency): (usize, &f64)| {
        let ramp = ((index as f64 - start) / (end - start)).clamp(0.0, 1.0);
        ramp * frequency / factor + (1.0 - ramp) * frequency
    };
    unscaled.iter().enumerate().map(scaled).collect()
}
