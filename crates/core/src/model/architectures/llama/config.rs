//! The `config.json` of the Llama family, in its older forms and in transformers 5's.

use super::rope::{self, RopeConfig};
use crate::error::Result;
use crate::model::architecture;
use serde::{Deserialize, Serialize};

/// As it is written. What is left out has transformers' default.
#[derive(Debug, Clone, Deserialize)]
pub struct RawConfig {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    rope_theta: Option<f64>,
    rope_scaling: Option<rope::RawRopeConfig>,
    rope_parameters: Option<rope::RawRopeConfig>,
}

/// What changes arithmetic, in one form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    pub hidden_size: usize,
    pub heads: usize,
    #[serde(rename = "key_heads")]
    pub kv_heads: usize,
    #[serde(rename = "head_width")]
    pub head_dim: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    #[serde(rename = "projection_bias")]
    pub qkv_bias: bool,
    pub output_bias: bool,
    pub mlp_bias: bool,
    /// Whether queries and keys are normed by head.
    #[serde(rename = "head_norms")]
    pub has_qk_norm: bool,
    #[serde(rename = "layers")]
    pub attention_kinds: Vec<AttentionKind>,
    /// Rows that a sliding layer looks at, the row itself among them.
    #[serde(rename = "window")]
    pub sliding_window: Option<usize>,
    pub rope: RopeConfig,
}

/// The most tokens of a sequence that are read, whatever a checkpoint could: attention holds all scores of a head at once.
const MAX_SUPPORTED_TOKENS: usize = 8192;

impl Config {
    /// Tokens in the longest sequence that is read.
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings.min(MAX_SUPPORTED_TOKENS)
    }
}

/// Which rows a layer looks at, of those that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKind {
    #[serde(rename = "all")]
    Global,
    Sliding,
}

impl RawConfig {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for what is not computed.
    pub fn resolve(self) -> Result<Config> {
        let model_type = self.model_type.as_str();
        architecture::require_value(model_type, "hidden_act", self.hidden_act.as_deref().unwrap_or("silu"), "silu")?;
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return architecture::unsupported_model(
                "num_attention_heads must be a multiple of num_key_value_heads".to_string(),
            );
        }
        let head_dim = match self.head_dim {
            Some(width) => width,
            None => {
                architecture::require_divisible_by_heads(self.hidden_size, heads)?;
                self.hidden_size / heads
            }
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return architecture::unsupported_model(format!(
                "head_dim {head_dim} is not supported: only even ones are"
            ));
        }
        if self.num_hidden_layers == 0 {
            return architecture::unsupported_model("num_hidden_layers must be at least 1".to_string());
        }
        let is_qwen2 = model_type == "qwen2";
        let attention_bias = self.attention_bias.unwrap_or(false);
        let rope = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()).cloned().unwrap_or_default();
        let (layers, window) = self.attention_kinds()?;
        Ok(Config {
            hidden_size: self.hidden_size,
            heads,
            kv_heads,
            head_dim,
            intermediate_size: self.intermediate_size,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            qkv_bias: is_qwen2 || attention_bias,
            output_bias: !is_qwen2 && attention_bias,
            mlp_bias: self.mlp_bias.unwrap_or(false),
            has_qk_norm: model_type == "qwen3",
            attention_kinds: layers,
            sliding_window: window,
            rope: rope.resolve(model_type, self.rope_theta, self.max_position_embeddings)?,
        })
    }

    /// Of every layer, and the window of those that slide.
    fn attention_kinds(&self) -> Result<(Vec<AttentionKind>, Option<usize>)> {
        let count = self.num_hidden_layers;
        let window = match self.model_type.as_str() {
            "mistral" => self.sliding_window,
            // Only where it is asked for.
            "qwen2" | "qwen3" => self.sliding_window.filter(|_| self.use_sliding_window == Some(true)),
            _ => None,
        };
        if window == Some(0) {
            return architecture::unsupported_model("sliding_window must be at least 1".to_string());
        }
        let layers = match (&self.layer_types, self.model_type.as_str(), window) {
            (Some(types), "qwen2" | "qwen3", _) => self.attention_kinds_from_types(types, window)?,
            (_, _, None) => vec![AttentionKind::Global; count],
            (_, "mistral", Some(_)) => vec![AttentionKind::Sliding; count],
            (_, _, Some(_)) => {
                let first_sliding_layer = self.max_window_layers.unwrap_or(28);
                (0..count)
                    .map(
                        |index| {
                            if index < first_sliding_layer { AttentionKind::Global } else { AttentionKind::Sliding }
                        },
                    )
                    .collect()
            }
        };
        Ok((layers, window))
    }

    fn attention_kinds_from_types(&self, types: &[String], window: Option<usize>) -> Result<Vec<AttentionKind>> {
        if types.len() != self.num_hidden_layers {
            return architecture::unsupported_model(
                "layer_types must name every layer of num_hidden_layers".to_string(),
            );
        }
        let parse_kind = |name: &String| match (name.as_str(), window) {
            ("full_attention", _) => Ok(AttentionKind::Global),
            ("sliding_attention", Some(_)) => Ok(AttentionKind::Sliding),
            ("sliding_attention", None) => architecture::unsupported_model(
                "layer_types names sliding layers, but use_sliding_window is off".to_string(),
            ),
            (other, _) => {
                let model_type = &self.model_type;
                architecture::unsupported_model(format!("layer_types \"{other}\" is not supported for {model_type}"))
            }
        };
        types.iter().map(parse_kind).collect()
    }
}
