//! GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions. Its checkpoints store linear weights as `(input, output)`.

use super::layers::PreNormLayer;
use super::llama;
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::attention::SelfAttention;
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks;
use crate::model::embeddings::{Embeddings, PositionEmbeddings};
use crate::model::layer_weights::{LayerPart, LayerPrefix, LayerWeights};
use crate::model::loader::{self, BiasPresence, CheckpointLoader, WeightLayout};
use crate::model::site::Module;
use crate::model::stack::{FinalNorm, KvHeads, Layer, ModelDimensions, Stack};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::Activation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub const ENTRY: ArchitectureEntry = ArchitectureEntry {
    model_type: "gpt2",
    classification_head: ClassificationHeadSpec::DECODER,
    lm_head: llama::LM_HEAD,
    word_embeddings_path: "transformer.wte",
    weight_layout: WeightLayout::InputOutput,
    canonical_name,
    load,
};

/// Older checkpoints store the attention masks, too; they are skipped.
fn canonical_name(name: &str) -> Option<String> {
    let canonical = loader::strip_model_prefix(name, "transformer.", &["wte.", "wpe.", "h.", "ln_f."])?;
    (!canonical.ends_with(".attn.bias") && !canonical.ends_with(".attn.masked_bias")).then_some(canonical)
}

/// `config.json`. Missing fields have transformers' defaults.
#[derive(Debug, Clone, Deserialize)]
struct RawConfig {
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
    /// Set for GGUF files only, whose linear weights are `(output, input)`. Not a field of transformers.
    #[serde(rename = "map_order")]
    weight_layout: Option<WeightLayout>,
}

/// Fields that change the results. They enter the fingerprint of the base model. `reorder_and_upcast_attn` is not among them,
/// because attention scores are always f32.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Config {
    vocab_size: usize,
    #[serde(rename = "positions")]
    max_positions: usize,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    intermediate_size: usize,
    layer_norm_epsilon: f64,
    activation: Activation,
}

impl RawConfig {
    fn weight_layout(&self) -> WeightLayout {
        self.weight_layout.unwrap_or(WeightLayout::InputOutput)
    }

    /// # Errors
    /// `Invalid` (`unsupported_model`) for a field with an unsupported value.
    fn resolve(self) -> Result<Config> {
        for (field, value, supported) in [
            ("scale_attn_weights", self.scale_attn_weights, true),
            ("scale_attn_by_inverse_layer_idx", self.scale_attn_by_inverse_layer_idx, false),
            ("add_cross_attention", self.add_cross_attention, false),
        ] {
            if value.is_some_and(|value| value != supported) {
                let detail = format!("{field} {} is not supported for gpt2: only {supported} is", !supported);
                return config_checks::unsupported_model(detail);
            }
        }
        config_checks::require_divisible_by_heads(["n_embd", "n_head"], self.n_embd, self.n_head)?;
        if self.n_layer == 0 {
            return config_checks::unsupported_model("n_layer must be at least 1");
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

/// Parses transformers' name of an activation. Three of the names mean the tanh approximation of GELU.
fn parse_activation(name: &str) -> Result<Activation> {
    Ok(match name {
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "gelu" => Activation::Gelu,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        other => {
            let supported = "gelu_new, gelu, relu and silu are";
            let detail = format!("activation_function \"{other}\" is not supported for gpt2: {supported}");
            return config_checks::unsupported_model(detail);
        }
    })
}

const BASE_MODEL_PREFIX: &str = "transformer";

fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let raw = config_checks::parse_config::<RawConfig>(config)?;
    let (weight_layout, config) = (raw.weight_layout(), raw.resolve()?);
    let mut loader =
        CheckpointLoader::new(weights, backend, config.layer_norm_epsilon).with_weight_layout(weight_layout);
    let (hidden, max_positions) = (config.hidden_size, config.max_positions);
    let words = loader.embedding("wte", config.vocab_size, hidden)?;
    let positions = PositionEmbeddings { table: loader.embedding("wpe", max_positions, hidden)?, offset: 0 };
    let embeddings = Embeddings { positions: Some(positions), ..Embeddings::words(words) };
    let layers = (0..config.layers).map(|index| load_layer(&mut loader, index, &config)).collect::<Result<_>>()?;
    let final_norm = FinalNorm {
        norm: loader.norm("ln_f", hidden, BiasPresence::Present)?,
        module_path: "transformer.ln_f".to_string(),
    };
    let dimensions = ModelDimensions {
        hidden_size: hidden,
        attention_heads: config.heads,
        vocabulary_size: config.vocab_size,
        max_tokens: max_positions,
    };
    let decoder = Some(KvHeads { kv_heads: config.heads, head_dim: hidden / config.heads });
    let stack = Stack { dimensions, embeddings, layers, final_norm: Some(final_norm), pooler: None, decoder };
    LoadedArchitecture::new(stack, &config)
}

fn load_layer(loader: &mut CheckpointLoader, index: usize, config: &Config) -> Result<Box<dyn Layer>> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let parts = [
        LayerPart::norm(Module::AttentionNorm, "ln_1", hidden),
        LayerPart::norm(Module::FeedForwardNorm, "ln_2", hidden),
        LayerPart::linear(Module::QueryKeyValue, "attn.c_attn", [hidden, 3 * hidden]),
        LayerPart::linear(Module::AttentionOutput, "attn.c_proj", [hidden, hidden]),
        LayerPart::linear(Module::FeedForwardIn, "mlp.c_fc", [hidden, intermediate]),
        LayerPart::linear(Module::FeedForwardOut, "mlp.c_proj", [intermediate, hidden]),
    ];
    let prefix = LayerPrefix { base_model: BASE_MODEL_PREFIX, layers: "h" };
    let weights = LayerWeights::load(loader, prefix, index, &parts)?;
    let mask = Some(Arc::new(AttentionMask::causal(None)));
    let attention = SelfAttention { heads: config.heads, rotary: None, mask };
    Ok(Box::new(PreNormLayer { weights, attention, activation: config.activation, qk_norms: None }))
}
