//! Parsing and checks of `config.json` that architectures share.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses the fields of `config.json` that an architecture reads.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) if a field is missing or has another type.
pub fn parse_config<T: DeserializeOwned>(config: Value) -> Result<T> {
    serde_json::from_value(config)
        .map_err(|error| Error::invalid("base_model_damaged", format!("config.json of the base model: {error}")))
}

/// # Errors
/// `Invalid` (`unsupported_model`), always.
pub fn unsupported_model<T>(detail: impl Into<String>) -> Result<T> {
    Err(Error::invalid("unsupported_model", detail))
}

/// Requires a field of `config.json` to have the only supported value.
///
/// # Errors
/// `Invalid` (`unsupported_model`) with the name of the field.
pub fn require_value(model_type: &str, field: &str, value: &str, supported: &str) -> Result<()> {
    if value == supported {
        return Ok(());
    }
    unsupported_model(format!("{field} \"{value}\" is not supported for {model_type}: only \"{supported}\" is"))
}

/// Requires a whole and even number of features per head, for rotary embeddings.
///
/// # Errors
/// `Invalid` (`unsupported_model`) with the names of the fields.
pub fn require_even_head_dim(hidden_size: usize, heads: usize) -> Result<()> {
    require_divisible_by_heads(["hidden_size", "num_attention_heads"], hidden_size, heads)?;
    if (hidden_size / heads).is_multiple_of(2) {
        return Ok(());
    }
    unsupported_model("hidden_size must be an even multiple of num_attention_heads")
}

/// Requires a whole number of features per head. `fields` are the names of width and heads in `config.json`.
///
/// # Errors
/// `Invalid` (`unsupported_model`) with the names of the fields.
pub fn require_divisible_by_heads(fields: [&str; 2], hidden_size: usize, heads: usize) -> Result<()> {
    if heads > 0 && hidden_size.is_multiple_of(heads) {
        return Ok(());
    }
    unsupported_model(format!("{} must be a multiple of {}", fields[0], fields[1]))
}

/// Rows to which a layer attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKind {
    Global,
    /// Sliding window attention (Beltagy et al. 2020).
    Sliding,
}

pub const GLOBAL_LAYER_TYPE: &str = "full_attention";
pub const SLIDING_LAYER_TYPE: &str = "sliding_attention";

/// Parses `layer_types`, which has one entry for each of `layers` layers.
///
/// # Errors
/// `Invalid` (`unsupported_model`) for another number of entries or an unknown entry.
pub fn parse_layer_types(model_type: &str, layer_types: &[String], layers: usize) -> Result<Vec<AttentionKind>> {
    if layer_types.len() != layers {
        return unsupported_model("layer_types must name every layer of num_hidden_layers");
    }
    let parse = |name: &String| match name.as_str() {
        GLOBAL_LAYER_TYPE => Ok(AttentionKind::Global),
        SLIDING_LAYER_TYPE => Ok(AttentionKind::Sliding),
        other => unsupported_model(format!("layer_types \"{other}\" is not supported for {model_type}")),
    };
    layer_types.iter().map(parse).collect()
}

/// Default of `layer_norm_eps` in transformers.
pub fn default_layer_norm_eps() -> f64 {
    1e-12
}

/// Default of `hidden_act` in transformers' encoders.
pub fn default_activation() -> String {
    "gelu".to_string()
}

/// Default of `position_embedding_type` in transformers.
pub fn default_position_embedding_type() -> String {
    "absolute".to_string()
}
