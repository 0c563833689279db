//! Frozen operations out of a checkpoint, by the names of their tensors. Knows no architecture.

use super::hooked_ops::HookedNorm;
use super::weights::CheckpointTensors;
use crate::error::Result;
use espalier_tensor::backend::{FrozenEmbedding, FrozenLinear, FrozenNorm, NormKind};
use espalier_tensor::{Backend, Tensor};
use serde::Deserialize;
use std::sync::Arc;

pub struct CheckpointLoader<'a> {
    pub weights: &'a mut CheckpointTensors,
    pub backend: &'a dyn Backend,
    norm_kind: NormKind,
    norm_eps: f64,
    weight_layout: WeightLayout,
    /// All norms are equally wide.
    unweighted_norm: Option<Arc<FrozenNorm>>,
}

/// How a checkpoint keeps the weights of linear maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    OutputInput,
    /// As transformers' Conv1D does.
    InputOutput,
}

/// Whether an operation has something to add in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiasPresence {
    Present,
    Absent,
}

impl BiasPresence {
    /// As a config says.
    pub fn from_flag(has_bias: bool) -> Self {
        if has_bias { Self::Present } else { Self::Absent }
    }
}

impl<'a> CheckpointLoader<'a> {
    /// `epsilon` is that of the norms.
    pub fn new(weights: &'a mut CheckpointTensors, backend: &'a dyn Backend, norm_eps: f64) -> Self {
        let order = WeightLayout::OutputInput;
        Self { weights, backend, norm_kind: NormKind::LayerNorm, norm_eps, weight_layout: order, unweighted_norm: None }
    }

    /// Where norms are by the root of the mean square.
    pub fn with_rms_norm(weights: &'a mut CheckpointTensors, backend: &'a dyn Backend, norm_eps: f64) -> Self {
        Self { norm_kind: NormKind::RmsNorm, ..Self::new(weights, backend, norm_eps) }
    }

    /// Where linear maps are kept so.
    pub fn with_weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self { weight_layout, ..self }
    }

    pub fn embedding(&mut self, name: &str, rows: usize, width: usize) -> Result<FrozenEmbedding> {
        let table = self.weights.take_weight(&format!("{name}.weight"), [rows, width])?;
        Ok(self.backend.load_embedding(table)?)
    }

    /// With a bias.
    pub fn linear(&mut self, name: &str, input: usize, output: usize) -> Result<Arc<FrozenLinear>> {
        self.linear_with_optional_bias(name, input, output, BiasPresence::Present)
    }

    pub fn linear_with_optional_bias(
        &mut self,
        name: &str,
        input: usize,
        output: usize,
        bias: BiasPresence,
    ) -> Result<Arc<FrozenLinear>> {
        let weight = format!("{name}.weight");
        let weight = match self.weight_layout {
            WeightLayout::OutputInput => self.weights.take_weight(&weight, [output, input])?,
            WeightLayout::InputOutput => self.weights.take_weight(&weight, [input, output])?.transposed(),
        };
        let bias = match bias {
            BiasPresence::Present => Some(self.weights.take_tensor(&format!("{name}.bias"), &[output])?),
            BiasPresence::Absent => None,
        };
        Ok(self.backend.load_linear(weight, bias).map(Arc::new)?)
    }

    /// With a shift.
    pub fn norm(&mut self, name: &str, width: usize) -> Result<HookedNorm> {
        self.norm_with_optional_bias(name, width, BiasPresence::Present)
    }

    pub fn norm_with_optional_bias(&mut self, name: &str, width: usize, bias: BiasPresence) -> Result<HookedNorm> {
        let weighted = self.frozen_norm(name, width, bias)?;
        let unweighted = match &self.unweighted_norm {
            Some(bare) => Arc::clone(bare),
            None => {
                let ones = Tensor::new([width], vec![1.0; width]);
                Arc::new(self.backend.freeze_norm(self.norm_kind, ones, Tensor::zeros([width]), self.norm_eps)?)
            }
        };
        self.unweighted_norm = Some(Arc::clone(&unweighted));
        Ok(HookedNorm { weighted, unweighted, has_bias: bias == BiasPresence::Present, width })
    }

    /// One that no adapter touches.
    pub fn frozen_norm(&mut self, name: &str, width: usize, bias: BiasPresence) -> Result<Arc<FrozenNorm>> {
        let weight = self.weights.take_tensor(&format!("{name}.weight"), &[width])?;
        let bias_vector = match bias {
            BiasPresence::Present => self.weights.take_tensor(&format!("{name}.bias"), &[width])?,
            BiasPresence::Absent => Tensor::zeros([width]),
        };
        Ok(self.backend.freeze_norm(self.norm_kind, weight, bias_vector, self.norm_eps).map(Arc::new)?)
    }

    /// The pooler, where the checkpoint has one.
    pub fn pooler(&mut self, hidden: usize) -> Result<Option<Arc<FrozenLinear>>> {
        match self.weights.contains("pooler.dense.weight") {
            true => Ok(Some(self.linear("pooler.dense", hidden, hidden)?)),
            false => Ok(None),
        }
    }
}

/// The part of a checkpoint's name behind a headed model's prefix, where it begins as one of `starts` does; `None` for
/// heads and buffers.
pub fn strip_model_prefix(name: &str, prefix: &str, encoder_prefixes: &[&str]) -> Option<String> {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    // Checkpoints converted from TensorFlow, and ESM's, call a norm's gain gamma and its shift beta.
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    let is_encoder_tensor = encoder_prefixes.iter().any(|start| name.starts_with(start));
    (is_encoder_tensor && !name.ends_with("position_ids")).then_some(name)
}
