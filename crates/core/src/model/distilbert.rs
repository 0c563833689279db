//! DistilBERT (Sanh et al. 2019): BERT with fewer layers, other names, no token types and no pooler.

use super::architecture::{self, Facts, Loaded};
use super::embeddings::{Embeddings, Types};
use super::loader::{self, Loader};
use super::post_norm::{Encoder, Layer, Names, Shape};
use super::weights::Weights;
use crate::error::Result;
use espalier_tensor::Kernels;
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
const EPSILON: f64 = 1e-12;

/// What the headed model calls the encoder.
const HEAD: &str = "distilbert";

const NAMES: Names = Names {
    layers: "transformer.layer",
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
pub fn canonical(name: &str) -> Option<String> {
    loader::behind(name, "distilbert.", &["embeddings.", "transformer."])
}

/// The table of positions is read from the checkpoint, whether it was learned or made of sines.
pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let config: Config = architecture::read(config)?;
    architecture::only("distilbert", "activation", &config.activation, "gelu")?;
    architecture::divisible(config.dim, config.n_heads)?;
    let shape = Shape { hidden: config.dim, wide: config.hidden_dim, heads: config.n_heads, distance: None };
    let mut loader = Loader::new(weights, kernels, EPSILON);
    let embeddings = Embeddings {
        word: loader.table("embeddings.word_embeddings", config.vocab_size, config.dim)?,
        position: loader.table("embeddings.position_embeddings", config.max_position_embeddings, config.dim)?,
        first: 0,
        types: Types::None,
        norm: loader.norm("embeddings.LayerNorm", config.dim)?,
    };
    let layers = (0..config.n_layers).map(|index| Layer::load(&mut loader, index, (&NAMES, HEAD), &shape));
    let layers = layers.collect::<Result<_>>()?;
    let facts = Facts {
        hidden_size: config.dim,
        layers: config.n_layers,
        attention_heads: config.n_heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings,
    };
    Loaded::new(Encoder { facts, head: HEAD, embeddings, layers, pooler: None }, &config)
}
