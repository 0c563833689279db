//! ModernBERT's `config.json`, in its older form and in transformers 5's.

use crate::error::Result;
use crate::model::architecture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// As it is written. What is left out has transformers' default.
#[derive(Debug, Clone, Deserialize)]
pub struct RawConfig {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    norm_eps: Option<f64>,
    norm_bias: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_activation: Option<String>,
    local_attention: Option<usize>,
    global_attn_every_n_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    rope_parameters: Option<BTreeMap<String, RawRopeConfig>>,
    rope_scaling: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct RawRopeConfig {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

/// What changes arithmetic, in one form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    pub hidden_size: usize,
    pub heads: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub norm_eps: f64,
    pub norm_bias: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    #[serde(rename = "layers")]
    pub attention_kinds: Vec<AttentionKind>,
    /// How far a local layer looks to either side.
    #[serde(rename = "window")]
    pub sliding_window_radius: usize,
    pub global_theta: f64,
    pub local_theta: f64,
}

/// Which rows a layer looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKind {
    Global,
    #[serde(rename = "local")]
    Sliding,
}

const GLOBAL_LAYER_TYPE: &str = "full_attention";
const SLIDING_LAYER_TYPE: &str = "sliding_attention";

impl RawConfig {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for what is not computed.
    pub fn resolve(self) -> Result<Config> {
        let activation = self.hidden_activation.as_deref().unwrap_or("gelu");
        architecture::require_value("modernbert", "hidden_activation", activation, "gelu")?;
        architecture::require_even_head_dim(self.hidden_size, self.num_attention_heads)?;
        if self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null()) {
            return architecture::unsupported_model("rope_scaling is not supported for modernbert".to_string());
        }
        Ok(Config {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
            norm_eps: self.norm_eps.unwrap_or(1e-5),
            norm_bias: self.norm_bias.unwrap_or(false),
            attention_bias: self.attention_bias.unwrap_or(false),
            mlp_bias: self.mlp_bias.unwrap_or(false),
            attention_kinds: self.attention_kinds()?,
            sliding_window_radius: self.local_attention.unwrap_or(128) / 2,
            global_theta: self.rope_theta(GLOBAL_LAYER_TYPE, self.global_rope_theta, 160_000.0)?,
            local_theta: self.rope_theta(SLIDING_LAYER_TYPE, self.local_rope_theta, 10_000.0)?,
        })
    }

    fn attention_kinds(&self) -> Result<Vec<AttentionKind>> {
        let every = self.global_attn_every_n_layers.unwrap_or(3).max(1);
        let default_kind =
            |index: usize| if index.is_multiple_of(every) { AttentionKind::Global } else { AttentionKind::Sliding };
        let Some(types) = &self.layer_types else {
            return Ok((0..self.num_hidden_layers).map(default_kind).collect());
        };
        if types.len() != self.num_hidden_layers {
            return architecture::unsupported_model(
                "layer_types must name every layer of num_hidden_layers".to_string(),
            );
        }
        let parse_kind = |name: &String| match name.as_str() {
            GLOBAL_LAYER_TYPE => Ok(AttentionKind::Global),
            SLIDING_LAYER_TYPE => Ok(AttentionKind::Sliding),
            other => {
                architecture::unsupported_model(format!("layer_types \"{other}\" is not supported for modernbert"))
            }
        };
        types.iter().map(parse_kind).collect()
    }

    fn rope_theta(&self, layer_type: &str, legacy_theta: Option<f64>, default: f64) -> Result<f64> {
        let rope = self.rope_parameters.as_ref().and_then(|all| all.get(layer_type));
        let rope_type = rope.and_then(|rope| rope.rope_type.as_deref()).unwrap_or("default");
        architecture::require_value("modernbert", "rope_parameters: rope_type", rope_type, "default")?;
        Ok(rope.and_then(|rope| rope.rope_theta).or(legacy_theta).unwrap_or(default))
    }
}
