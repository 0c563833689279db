//! BERT's `config.json`.

use crate::error::{Error, Result};
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
    #[serde(default = "default_positions")]
    pub position_embedding_type: String,
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_activation() -> String {
    "gelu".to_string()
}

fn default_positions() -> String {
    "absolute".to_string()
}

impl Config {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for what this architecture does not compute.
    pub fn check(&self) -> Result<()> {
        let unsupported = |what: String| Err(Error::invalid("unsupported_model", what));
        if self.hidden_act != "gelu" {
            return unsupported(format!(
                "hidden_act \"{}\" is not supported for bert: only \"gelu\" is",
                self.hidden_act
            ));
        }
        if self.position_embedding_type != "absolute" {
            let kind = &self.position_embedding_type;
            return unsupported(format!("position_embedding_type \"{kind}\" is not supported: only \"absolute\" is"));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return unsupported("hidden_size must be a multiple of num_attention_heads".to_string());
        }
        Ok(())
    }
}
