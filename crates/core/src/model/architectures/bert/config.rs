//! BERT's `config.json`, and the most of RoBERTa's.

use crate::error::Result;
use crate::model::architecture;
use serde::{Deserialize, Serialize};

/// The fields of `config.json` that change arithmetic; they enter the base's fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    #[serde(default = "default_epsilon")]
    pub layer_norm_eps: f64,
    #[serde(default = "default_activation")]
    pub hidden_act: String,
    #[serde(default = "default_position_embedding_type")]
    pub position_embedding_type: String,
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_activation() -> String {
    "gelu".to_string()
}

fn default_position_embedding_type() -> String {
    "absolute".to_string()
}

impl Config {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for what this architecture does not compute.
    pub fn check(&self, model_type: &str) -> Result<()> {
        architecture::require_value(model_type, "hidden_act", &self.hidden_act, "gelu")?;
        architecture::require_value(model_type, "position_embedding_type", &self.position_embedding_type, "absolute")?;
        architecture::require_divisible_by_heads(self.hidden_size, self.num_attention_heads)
    }
}
