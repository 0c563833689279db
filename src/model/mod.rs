//! The frozen base model: loaded once, never changed. Knows nothing of training, tasks or adapters' insides.

pub mod bert;
pub mod hooks;
pub mod hub;
pub mod tokenizer;
pub mod weights;

pub use hooks::{Hooks, Lowest, Module, Site, SiteInfo};
pub use tokenizer::{Tokenizer, Tokens};

use crate::compute::Kernels;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use utoipa::ToSchema;

/// How a sequence becomes one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the sequence's tokens (Reimers & Gurevych 2019).
    Mean,
    /// The first token through BERT's pooler, as `AutoModelForSequenceClassification` does.
    Cls,
}

/// What the loaded base is and can do: the body of `GET /base`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// PEFT's `base_model_name_or_path`, for example `sentence-transformers/all-MiniLM-L6-v2`.
    pub name: String,
    pub model_type: String,
    /// `sha256:…` over tensors, tokenizer and the fields of the config that change arithmetic.
    pub fingerprint: String,
    pub parameters: u64,
    pub hidden_size: usize,
    pub layers: usize,
    pub attention_heads: usize,
    pub vocabulary_size: usize,
    /// Tokens in the longest sequence that it can read.
    pub max_tokens: usize,
    pub default_pooling: Pooling,
    pub poolings: Vec<Pooling>,
    /// Our names of the modules that LoRA may target.
    pub target_modules: Vec<String>,
    /// `candle-cpu`, …
    pub kernels: String,
}

/// The base model, in memory once for the whole process.
pub struct Base {}

impl Base {
    /// Loads `config.json`, the safetensors and `tokenizer.json` from a folder (see [`hub::locate`] for finding it).
    ///
    /// # Errors
    /// `Invalid` where a file is missing or damaged, or the `model_type` is not supported (it lists those that are).
    pub fn load(folder: &Path, name: &str, kernels: Arc<dyn Kernels>) -> Result<Self> {
        let _ = (folder, name, kernels);
        todo!("written by the model room")
    }

    pub fn info(&self) -> &Info {
        todo!("written by the model room")
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        todo!("written by the model room")
    }

    /// Every linear map that an adapter may touch under this pooling (`cls` adds the pooler).
    pub fn sites(&self, pooling: Pooling) -> Vec<SiteInfo> {
        let _ = pooling;
        todo!("written by the model room")
    }
}
