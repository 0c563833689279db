//! GPT-2's `config.json`.

use crate::error::Result;
use crate::model::architecture;
use crate::model::loader::WeightLayout;
use espalier_tensor::backend::Activation;
use serde::{Deserialize, Serialize};

/// As it is written. What is left out has transformers' default.
#[derive(Debug, Clone, Deserialize)]
pub struct RawConfig {
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    layer_norm_epsilon: Option<f64>,
    activation_function: Option<String>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    add_cross_attention: Option<bool>,
    /// No field of transformers': a GGUF file has turned its maps already.
    #[serde(rename = "map_order")]
    weight_layout: Option<WeightLayout>,
}

/// What changes arithmetic, in one form. Whether scores are computed in another order (`reorder_and_upcast_attn`) is none of
/// it: here they always are in 32 bits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    pub vocab_size: usize,
    #[serde(rename = "positions")]
    pub max_positions: usize,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate_size: usize,
    pub layer_norm_epsilon: f64,
    pub activation: Activation,
}

impl RawConfig {
    /// How the checkpoint keeps linear maps.
    pub fn weight_layout(&self) -> WeightLayout {
        self.weight_layout.unwrap_or(WeightLayout::InputOutput)
    }

    /// # Errors
    /// `Invalid` (`unsupported_model`) for what is not computed.
    pub fn resolve(self) -> Result<Config> {
        for (field, given, computed) in [
            ("scale_attn_weights", self.scale_attn_weights, true),
            ("scale_attn_by_inverse_layer_idx", self.scale_attn_by_inverse_layer_idx, false),
            ("add_cross_attention", self.add_cross_attention, false),
        ] {
            if given.is_some_and(|given| given != computed) {
                let detail = format!("{field} {} is not supported for gpt2: only {computed} is", !computed);
                return architecture::unsupported_model(detail);
            }
        }
        if self.n_head == 0 || !self.n_embd.is_multiple_of(self.n_head) {
            return architecture::unsupported_model("n_embd must be a multiple of n_head".to_string());
        }
        if self.n_layer == 0 {
            return architecture::unsupported_model("n_layer must be at least 1".to_string());
        }
        Ok(Config {
            vocab_size: self.vocab_size,
            max_positions: self.n_positions,
            hidden_size: self.n_embd,
            layers: self.n_layer,
            heads: self.n_head,
            intermediate_size: self.n_inner.unwrap_or(4 * self.n_embd),
            layer_norm_epsilon: self.layer_norm_epsilon.unwrap_or(1e-5),
            activation: parse_activation(self.activation_function.as_deref().unwrap_or("gelu_new"))?,
        })
    }
}

/// By transformers' names, three of which mean the same.
fn parse_activation(name: &str) -> Result<Activation> {
    Ok(match name {
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "gelu" => Activation::Gelu,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        other => {
            let supported = "gelu_new, gelu, relu and silu are";
            let detail = format!("activation_function \"{other}\" is not supported for gpt2: {supported}");
            return architecture::unsupported_model(detail);
        }
    })
}
