//! The published adapter: its folder, its hash, strict reading, the probe, import and export.
//!
//! A folder holds PEFT's `adapter_config.json` and `adapter_model.safetensors`, and `espalier.json` with what PEFT
//! cannot say. Nothing in it depends on who made it, when, or how fast: equal base, data, spec and seed give the same
//! version. Knows nothing of jobs, SQL or HTTP.

pub mod adapted;

pub use adapted::Adapted;

use crate::compute::Tensor;
use crate::error::Result;
use crate::model::Base;
use crate::{adapter, task};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// An adapter in memory, as its folder holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub card: Card,
    /// Adapter and head tensors by our names (`layer.3.query.lora_A`, `head.weight`).
    pub weights: BTreeMap<String, Tensor>,
}

/// `espalier.json`: what PEFT's files cannot hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
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
    pub base: BaseCard,
    pub probe: Probe,
    /// What the run measured on its validation split; absent for an imported adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<serde_json::Value>,
}

/// The base that the adapter was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseCard {
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
pub struct Published {
    /// sha256, hexadecimal without prefix: the folder's name.
    pub version: String,
    pub bytes: u64,
}

/// Writes the adapter as a folder under `root`, named by its version; one that is there already is left as it is.
/// Files are written beside it in `temporary` (on the same file system), fsynced, and renamed into place.
pub fn write(artifact: &Artifact, base: &Base, root: &Path, temporary: &Path) -> Result<Published> {
    let _ = (artifact, base, root, temporary);
    todo!("written by the artifact room")
}

/// Reads a published folder strictly: its version must be its name, every tensor known, present and of its shape, the
/// base the one it was made for.
///
/// # Errors
/// `Conflict` with `adapter_damaged` or `other_base` and the reason.
pub fn read(root: &Path, version: &str, base: &Base) -> Result<Artifact> {
    let _ = (root, version, base);
    todo!("written by the artifact room")
}
