//! DistilBERT (Sanh et al. 2019): BERT with fewer layers, other names, no token types and no pooler.

use super::post_norm::{Layer, LayerConfig, LayerTensorNames, PostNormEncoder};
use crate::error::Result;
use crate::model::architecture::{self, LoadedArchitecture, ModelDimensions};
use crate::model::embeddings::{Embeddings, TokenTypes};
use crate::model::loader::{self, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fields of `config.json` that change arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_activation")]
    activation: String,
}

fn default_activation() -> String {
    "gelu".to_string()
}

/// Fixed in its code.
const LAYER_NORM_EPS: f64 = 1e-12;

/// What the headed model calls the encoder.
const BASE_MODEL_PREFIX: &str = "distilbert";

const LAYER_TENSOR_NAMES: LayerTensorNames = LayerTensorNames {
    layers_prefix: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    feed_forward_in: "ffn.lin1",
    feed_forward_out: "ffn.lin2",
    feed_forward_norm: "output_layer_norm",
};

/// Our name for a checkpoint's tensor: without the `distilbert.` prefix, `None` for heads and buffers.
pub fn canonical_name(name: &str) -> Option<String> {
    loader::strip_model_prefix(name, "distilbert.", &["embeddings.", "transformer."])
}

/// The table of positions is read from the checkpoint, whether it was learned or made of sines.
pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = architecture::parse_config(config)?;
    architecture::require_value("distilbert", "activation", &config.activation, "gelu")?;
    architecture::require_divisible_by_heads(config.dim, config.n_heads)?;
    let layer_config = LayerConfig {
        hidden_size: config.dim,
        intermediate_size: config.hidden_dim,
        heads: config.n_heads,
        mask: None,
    };
    let mut loader = CheckpointLoader::new(weights, backend, LAYER_NORM_EPS);
    let embeddings = Embeddings {
        word_embeddings: loader.embedding("embeddings.word_embeddings", config.vocab_size, config.dim)?,
        position_embeddings: loader.embedding(
            "embeddings.position_embeddings",
            config.max_position_embeddings,
            config.dim,
        )?,
        position_offset: 0,
        token_types: TokenTypes::Absent,
        norm: loader.norm("embeddings.LayerNorm", config.dim)?,
    };
    let layers = (0..config.n_layers)
        .map(|index| Layer::load(&mut loader, index, (&LAYER_TENSOR_NAMES, BASE_MODEL_PREFIX), &layer_config));
    let layers = layers.collect::<Result<_>>()?;
    let dimensions = ModelDimensions {
        hidden_size: config.dim,
        layers: config.n_layers,
        attention_heads: config.n_heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings,
    };
    LoadedArchitecture::new(
        PostNormEncoder { dimensions, base_model_prefix: BASE_MODEL_PREFIX, embeddings, layers, pooler: None },
        &config,
    )
}
