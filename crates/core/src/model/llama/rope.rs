//! Rotary positions beyond the length that a model was first trained on: how its config stretches them.

use crate::error::Result;
use crate::model::architecture;
use espalier_tensor::Kernels;
use espalier_tensor::rotary::{self, Rotation};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// `rope_parameters` of transformers 5, `rope_scaling` of older ones.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Written {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    #[serde(rename = "type")]
    older_type: Option<String>,
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
pub struct Rope {
    theta: f64,
    scaling: Scaling,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Scaling {
    None,
    /// All angles are divided (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// Slow angles are divided, fast ones are not (Llama 3.1).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// Every angle is divided by its own number, as llama.cpp has it.
    Factors {
        factors: Vec<f64>,
    },
    /// The same by how often an angle turns, and scores are scaled (Peng et al. 2023).
    Yarn {
        factor: f64,
        attention: f64,
        fast: f64,
        slow: f64,
        original: f64,
        truncate: bool,
    },
}

impl Written {
    /// `theta` is the config's own, which older ones have beside it; `longest` the tokens that it says it reads.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_model`) for what is not computed.
    pub fn resolve(&self, model_type: &str, theta: Option<f64>, longest: usize) -> Result<Rope> {
        if self.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
            return architecture::unsupported(format!("partial_rotary_factor is not supported for {model_type}"));
        }
        let rope_type = self.rope_type.as_deref().or(self.older_type.as_deref()).unwrap_or("default");
        let need = |field: &str, value: Option<f64>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            _ => architecture::unsupported(format!("rope_type \"{rope_type}\" needs a {field} above 0")),
        };
        let original = self.original_max_position_embeddings.or(Some(longest as f64));
        let scaling = match rope_type {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: need("factor", self.factor)? },
            "llama3" => Scaling::Llama3 {
                factor: need("factor", self.factor)?,
                low: need("low_freq_factor", self.low_freq_factor)?,
                high: need("high_freq_factor", self.high_freq_factor)?,
                original: need("original_max_position_embeddings", original)?,
            },
            "factors" => {
                let each = self.factors.iter().flatten().map(|factor| need("factor for every pair", Some(*factor)));
                Scaling::Factors { factors: each.collect::<Result<_>>()? }
            }
            "yarn" => {
                let original = need("original_max_position_embeddings", original)?;
                let factor = need("factor", self.factor.or(Some(longest as f64 / original)))?;
                Scaling::Yarn {
                    factor,
                    attention: self.attention_factor.unwrap_or_else(|| self.attention(factor)),
                    fast: self.beta_fast.unwrap_or(32.0),
                    slow: self.beta_slow.unwrap_or(1.0),
                    original,
                    truncate: self.truncate.unwrap_or(true),
                }
            }
            other => {
                return architecture::unsupported(format!("rope_type \"{other}\" is not supported for {model_type}"));
            }
        };
        let theta = need("rope_theta", self.rope_theta.or(theta).or(Some(10_000.0)))?;
        Ok(Rope { theta, scaling })
    }

    /// What cosines and sines are multiplied by where the config does not say it.
    fn attention(&self, factor: f64) -> f64 {
        let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        match (self.mscale, self.mscale_all_dim) {
            (Some(own), Some(all)) if own != 0.0 && all != 0.0 => scale(own) / scale(all),
            _ => scale(1.0),
        }
    }
}

impl Rope {
    pub fn rotation(&self, kernels: &dyn Kernels, positions: usize, head_width: usize) -> Result<Rotation> {
        let plain = rotary::frequencies(self.theta, head_width);
        let (frequencies, scale): (Vec<f64>, f64) = match &self.scaling {
            Scaling::None => (plain, 1.0),
            Scaling::Linear { factor } => (plain.iter().map(|frequency| frequency / factor).collect(), 1.0),
            Scaling::Factors { factors } if factors.len() == plain.len() => {
                (plain.iter().zip(factors).map(|(frequency, factor)| frequency / factor).collect(), 1.0)
            }
            Scaling::Factors { factors } => {
                let (given, pairs) = (factors.len(), plain.len());
                return architecture::unsupported(format!("rope factors: there are {given}, but {pairs} pairs turn"));
            }
            Scaling::Llama3 { factor, low, high, original } => {
                let stretched = |frequency: &f64| {
                    // How often it turns within the original length.
                    let turns = original * frequency / TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - kept) * frequency / factor + kept * frequency
                };
                (plain.iter().map(stretched).collect(), 1.0)
            }
            Scaling::Yarn { factor, attention, fast, slow, original, truncate } => {
                let width = head_width as f64;
                // The pair that turns so often within the original length.
                let pair = |turns: f64| width * (original / (turns * TAU)).ln() / (2.0 * self.theta.ln());
                let (mut first, mut end) = (pair(*fast), pair(*slow));
                if *truncate {
                    (first, end) = (first.floor(), end.ceil());
                }
                let (first, end) = (first.max(0.0), end.min(width - 1.0));
                let end = if end == first { end + 0.001 } else { end };
                let stretched = |(index, frequency): (usize, &f64)| {
                    let divided = ((index as f64 - first) / (end - first)).clamp(0.0, 1.0);
                    divided * frequency / factor + (1.0 - divided) * frequency
                };
                (plain.iter().enumerate().map(stretched).collect(), *attention)
            }
        };
        Ok(Rotation::new(kernels, positions, &frequencies, scale)?)
    }
}
