//! The published adapter: its folder, its hash, strict reading, the probe, import and export.
//!
//! A folder holds PEFT's `adapter_config.json` and `adapter_model.safetensors`, and `espalier.json` with what PEFT
//! cannot say. Nothing in it depends on who made it, when, or how fast: equal base, data, spec and seed give the same
//! version. Knows nothing of jobs, SQL or HTTP.

pub mod adapterhub;
pub mod base_match;
pub mod base_summary;
pub mod folder;
pub mod import;
pub mod loaded_adapter;
pub mod manifest;
pub mod peft;
pub mod probe;
pub mod safetensors;
pub mod validation_errors;
pub mod zip;

#[cfg(test)]
mod testing;

pub use base_summary::BaseSummary;
pub use folder::{load_published, publish_artifact};
pub use import::{ImportRequest, import};
pub use loaded_adapter::LoadedAdapter;

use crate::{adapter, task};
use espalier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// PEFT's file about the method, and AdapterHub's.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// PEFT's file of tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Our file: [`Card`].
pub const MANIFEST_FILE: &str = "espalier.json";

/// An adapter in memory, as its folder holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub manifest: AdapterManifest,
    /// Adapter and head tensors by our names (`layer.3.query.lora_A`, `head.weight`).
    pub weights: BTreeMap<String, Tensor>,
}

/// `espalier.json`: what PEFT's files cannot hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterManifest {
    /// Version of this file's format: 1.
    pub format: u32,
    pub task: task::Config,
    pub method: adapter::Config,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Divides the logits before the softmax.
    pub temperature: f32,
    /// Tokens; longer inputs are truncated as in training.
    pub max_length: usize,
    pub base: BaseModelId,
    pub probe: Probe,
    /// What the run measured on its validation split; absent for an imported adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<serde_json::Value>,
}

/// The base that the adapter was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModelId {
    /// PEFT's `base_model_name_or_path`.
    pub name: String,
    /// `None` for a plain PEFT folder: then only name and shapes could be checked.
    pub fingerprint: Option<String>,
}

/// Proof of effect: inputs and the logits that they gave when the adapter was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub inputs: Vec<task::Input>,
    /// One row of logits per input.
    pub outputs: Vec<Vec<f32>>,
    /// Kernel set that gave them: on the same one the answers may differ by 1e-4, on another by 2e-2.
    pub kernels: String,
}

/// A folder on disk under its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAdapter {
    /// sha256, hexadecimal without prefix: the folder's name.
    pub version: String,
    pub total_bytes: u64,
    pub prior_folder: PriorFolder,
}

/// What was in a published folder's place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorFolder {
    Absent,
    /// A folder of this version, whole or damaged; somebody may be about to remove it.
    Present,
}

/// Limits on what an uploaded zip may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct ImportLimits {
    /// Entries in the zip, folders and ignored files included.
    pub max_entries: usize,
    /// Bytes of `adapter_config.json` and of `espalier.json`, unpacked.
    pub max_json_bytes: u64,
    /// Bytes of `adapter_model.safetensors`, unpacked.
    pub max_tensor_bytes: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { max_entries: 1000, max_json_bytes: 64 << 20, max_tensor_bytes: 512 << 20 }
    }
}
