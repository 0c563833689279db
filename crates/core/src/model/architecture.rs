//! What the table of architectures holds for each `model_type` of a `config.json`.

use super::classification_head::ClassificationHeadSpec;
use super::lm_head::LmHeadTensorNames;
use super::loader::WeightLayout;
use super::stack::Stack;
use super::weights::CheckpointTensors;
use crate::error::{Context, Result};
use espalier_tensor::Backend;
use serde::Serialize;
use serde_json::Value;

/// A `model_type`: the names of its checkpoints, and how to load them.
pub struct ArchitectureEntry {
    pub model_type: &'static str,
    pub classification_head: ClassificationHeadSpec,
    pub lm_head: LmHeadTensorNames,
    /// Order of the dimensions of linear weights in transformers' checkpoints.
    pub weight_layout: WeightLayout,
    /// Maps a tensor name of a checkpoint to the canonical name; `None` for heads and buffers.
    pub canonical_name: fn(&str) -> Option<String>,
    pub load: fn(Value, &mut CheckpointTensors, &dyn Backend) -> Result<LoadedArchitecture>,
}

/// A loaded model, and the fields of its config that change the results. The fields enter the fingerprint.
pub struct LoadedArchitecture {
    pub stack: Stack,
    pub config: Value,
}

impl LoadedArchitecture {
    pub fn new(stack: Stack, config: &impl Serialize) -> Result<Self> {
        Ok(Self { stack, config: serde_json::to_value(config).context("serializing the config")? })
    }
}
