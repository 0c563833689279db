//! Loads frozen operations from a checkpoint by the canonical names of their tensors.

use super::hooks::HookedNorm;
use super::pooling::Pooler;
use super::weights::CheckpointTensors;
use crate::error::Result;
use espalier_tensor::backend::{FrozenEmbedding, FrozenLinear, FrozenNorm, NormKind};
use espalier_tensor::{Backend, Tensor};
use serde::Deserialize;
use std::sync::Arc;

/// Takes tensors from a checkpoint and uploads them. The order of the calls enters the fingerprint of the base model.
pub struct CheckpointLoader<'a> {
    pub weights: &'a mut CheckpointTensors,
    pub backend: &'a dyn Backend,
    norm_kind: NormKind,
    norm_eps: f64,
    weight_layout: WeightLayout,
    /// Norm without weight and bias; all norms have the same width and share it.
    unweighted_norm: Option<Arc<FrozenNorm>>,
}

/// Order of the dimensions of linear weights in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    OutputInput,
    /// As `Conv1D` of transformers.
    InputOutput,
}

/// Whether a linear map or norm has a bias in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiasPresence {
    Present,
    Absent,
}

impl BiasPresence {
    /// From a flag of a `config.json`.
    pub fn from_flag(has_bias: bool) -> Self {
        if has_bias { Self::Present } else { Self::Absent }
    }
}

impl<'a> CheckpointLoader<'a> {
    /// A loader of layer norms with this epsilon and of weights `(output, input)`.
    pub fn new(weights: &'a mut CheckpointTensors, backend: &'a dyn Backend, norm_eps: f64) -> Self {
        let (norm_kind, weight_layout) = (NormKind::LayerNorm, WeightLayout::OutputInput);
        Self { weights, backend, norm_kind, norm_eps, weight_layout, unweighted_norm: None }
    }

    /// Loads norms as RMS norms (Zhang & Sennrich 2019).
    pub fn with_rms_norm(self) -> Self {
        Self { norm_kind: NormKind::RmsNorm, ..self }
    }

    pub fn with_weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self { weight_layout, ..self }
    }

    pub fn embedding(&mut self, name: &str, rows: usize, width: usize) -> Result<FrozenEmbedding> {
        let table = self.weights.take_weight(&format!("{name}.weight"), [rows, width])?;
        Ok(self.backend.load_embedding(table)?)
    }

    pub fn linear(&mut self, name: &str, [input, output]: [usize; 2], bias: BiasPresence) -> Result<Arc<FrozenLinear>> {
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

    pub fn norm(&mut self, name: &str, width: usize, bias: BiasPresence) -> Result<HookedNorm> {
        let weighted = self.frozen_norm(name, width, bias)?;
        let unweighted = match &self.unweighted_norm {
            Some(unweighted) => Arc::clone(unweighted),
            None => {
                let ones = Tensor::new([width], vec![1.0; width]);
                Arc::new(self.backend.freeze_norm(self.norm_kind, ones, Tensor::zeros([width]), self.norm_eps)?)
            }
        };
        self.unweighted_norm = Some(Arc::clone(&unweighted));
        Ok(HookedNorm { weighted, unweighted, has_bias: bias == BiasPresence::Present, width })
    }

    /// Loads a norm that no adapter can target.
    pub fn frozen_norm(&mut self, name: &str, width: usize, bias: BiasPresence) -> Result<Arc<FrozenNorm>> {
        let weight = self.weights.take_tensor(&format!("{name}.weight"), &[width])?;
        let bias = match bias {
            BiasPresence::Present => self.weights.take_tensor(&format!("{name}.bias"), &[width])?,
            BiasPresence::Absent => Tensor::zeros([width]),
        };
        Ok(self.backend.freeze_norm(self.norm_kind, weight, bias, self.norm_eps).map(Arc::new)?)
    }

    /// Loads the pooler of the base model `base_model_prefix`, if the checkpoint has one.
    pub fn pooler(&mut self, base_model_prefix: &str, hidden: usize) -> Result<Option<Pooler>> {
        if !self.weights.contains("pooler.dense.weight") {
            return Ok(None);
        }
        let dense = self.linear("pooler.dense", [hidden, hidden], BiasPresence::Present)?;
        Ok(Some(Pooler { dense, module_path: format!("{base_model_prefix}.pooler.dense") }))
    }
}

/// Removes `prefix`, which checkpoints with a head have, from a tensor name. `None` for heads and buffers: names that begin
/// with none of `encoder_prefixes`.
pub fn strip_model_prefix(name: &str, prefix: &str, encoder_prefixes: &[&str]) -> Option<String> {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    // Checkpoints converted from TensorFlow, and those of ESM, name the weight of a norm gamma and its bias beta.
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    let is_encoder_tensor = encoder_prefixes.iter().any(|prefix| name.starts_with(prefix));
    (is_encoder_tensor && !name.ends_with("position_ids")).then_some(name)
}
