//! `config.json` of the Llama family, in its older forms and in the form of transformers 5.

use super::rope::{self, RopeConfig};
use crate::error::Result;
use crate::model::config_checks::{self, AttentionKind};
use serde::{Deserialize, Serialize, Serializer};

/// `config.json`. Missing fields have transformers' defaults.
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

/// Fields that change the results, in one form. They enter the fingerprint of the base model.
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
    /// Whether the queries and keys of each head are normed.
    #[serde(rename = "head_norms")]
    pub has_qk_norm: bool,
    #[serde(rename = "layers", serialize_with = "serialize_attention_kinds")]
    pub attention_kinds: Vec<AttentionKind>,
    /// Number of rows to which a row of a sliding layer attends, itself included.
    #[serde(rename = "window")]
    pub sliding_window: Option<usize>,
    pub rope: RopeConfig,
}

/// Upper limit of the sequence length, because attention holds all scores of a head in memory at once.
const MAX_SUPPORTED_TOKENS: usize = 8192;

impl Config {
    /// Maximum sequence length in tokens.
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings.min(MAX_SUPPORTED_TOKENS)
    }
}

fn serialize_attention_kinds<S: Serializer>(kinds: &[AttentionKind], serializer: S) -> Result<S::Ok, S::Error> {
    let name = |kind: &AttentionKind| match kind {
        AttentionKind::Global => "all",
        AttentionKind::Sliding => "sliding",
    };
    serializer.collect_seq(kinds.iter().map(name))
}

impl RawConfig {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for a field with an unsupported value.
    pub fn resolve(self) -> Result<Config> {
        let model_type = self.model_type.as_str();
        config_checks::require_value(model_type, "hidden_act", self.hidden_act.as_deref().unwrap_or("silu"), "silu")?;
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return config_checks::unsupported_model("num_attention_heads must be a multiple of num_key_value_heads");
        }
        let head_dim = match self.head_dim {
            Some(width) => width,
            None => {
                config_checks::require_divisible_by_heads(
                    ["hidden_size", "num_attention_heads"],
                    self.hidden_size,
                    heads,
                )?;
                self.hidden_size / heads
            }
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return config_checks::unsupported_model(format!(
                "head_dim {head_dim} is not supported: only even ones are"
            ));
        }
        if self.num_hidden_layers == 0 {
            return config_checks::unsupported_model("num_hidden_layers must be at least 1");
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

    /// Attention kind of every layer, and the window of the sliding layers.
    fn attention_kinds(&self) -> Result<(Vec<AttentionKind>, Option<usize>)> {
        let count = self.num_hidden_layers;
        let window = match self.model_type.as_str() {
            "mistral" => self.sliding_window,
            "qwen2" | "qwen3" => self.sliding_window.filter(|_| self.use_sliding_window == Some(true)),
            _ => None,
        };
        if window == Some(0) {
            return config_checks::unsupported_model("sliding_window must be at least 1");
        }
        let layers = match (&self.layer_types, self.model_type.as_str(), window) {
            (Some(types), "qwen2" | "qwen3", _) => self.attention_kinds_from_types(types, window)?,
            (_, _, None) => vec![AttentionKind::Global; count],
            (_, "mistral", Some(_)) => vec![AttentionKind::Sliding; count],
            (_, _, Some(_)) => {
                let global_layers = self.max_window_layers.unwrap_or(28).min(count);
                let sliding = std::iter::repeat_n(AttentionKind::Sliding, count - global_layers);
                std::iter::repeat_n(AttentionKind::Global, global_layers).chain(sliding).collect()
            }
        };
        Ok((layers, window))
    }

    fn attention_kinds_from_types(&self, types: &[String], window: Option<usize>) -> Result<Vec<AttentionKind>> {
        let kinds = config_checks::parse_layer_types(&self.model_type, types, self.num_hidden_layers)?;
        match window.is_none() && kinds.contains(&AttentionKind::Sliding) {
            true => config_checks::unsupported_model("layer_types names sliding layers, but use_sliding_window is off"),
            false => Ok(kinds),
        }
    }
}
