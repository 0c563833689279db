//! The table of supported architectures. Adding one takes a file in this folder and a line in the table.
//! The key of the table is the `model_type` of a `config.json`.

use super::classification_head::ClassificationHeadSpec;
use super::config_checks;
use super::lm_head::LmHeadTensorNames;
use super::loader::WeightLayout;
use super::stack::Stack;
use super::weights::CheckpointTensors;
use crate::error::{Context, Result};
use espalier_tensor::Backend;
use serde::Serialize;
use serde_json::Value;

mod bert;
mod distilbert;
mod esm;
mod gpt2;
mod layers;
mod llama;
mod modernbert;
mod mpnet;
mod roberta;

const ARCHITECTURES: [ArchitectureEntry; 13] = [
    bert::ENTRY,
    roberta::ROBERTA,
    roberta::XLM_ROBERTA,
    roberta::CAMEMBERT,
    distilbert::ENTRY,
    esm::ENTRY,
    modernbert::ENTRY,
    mpnet::ENTRY,
    llama::LLAMA,
    llama::MISTRAL,
    llama::QWEN2,
    llama::QWEN3,
    gpt2::ENTRY,
];

/// Supported values of `model_type`.
pub const SUPPORTED_MODEL_TYPES: [&str; ARCHITECTURES.len()] = {
    let mut names = [""; ARCHITECTURES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = ARCHITECTURES[index].model_type;
        index += 1;
    }
    names
};

/// The entry of a `model_type`.
pub fn find_entry(model_type: &str) -> Option<&'static ArchitectureEntry> {
    const TABLE: &[ArchitectureEntry] = &ARCHITECTURES;
    TABLE.iter().find(|entry| entry.model_type == model_type)
}

/// The entry of a `config.json`.
///
/// # Errors
/// `Invalid` (`unsupported_model`) if the `model_type` is not supported, with those that are, or if an encoder is configured
/// as a decoder.
pub fn entry_for_config(config: &Value) -> Result<&'static ArchitectureEntry> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let Some(entry) = find_entry(model_type) else {
        let supported = SUPPORTED_MODEL_TYPES.join(", ");
        let detail = format!("model_type \"{model_type}\" is not supported; supported are: {supported}");
        return config_checks::unsupported_model(detail);
    };
    if config["is_decoder"].as_bool() == Some(true) {
        let detail = format!("is_decoder is not supported for {model_type}: only encoders are");
        return config_checks::unsupported_model(detail);
    }
    Ok(entry)
}

/// A `model_type`: the names of its checkpoints, and how to load them.
pub struct ArchitectureEntry {
    pub model_type: &'static str,
    pub classification_head: ClassificationHeadSpec,
    pub lm_head: LmHeadTensorNames,
    /// Path of the word embeddings in transformers' model with a head.
    pub word_embeddings_path: &'static str,
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
