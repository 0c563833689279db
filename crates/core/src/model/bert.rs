//! BERT (Devlin et al. 2018): absolute positions, token types, post-norm layers, exact gelu, and a tanh pooler.

mod config;

pub use config::Config;

use super::architecture::{self, Facts, Loaded};
use super::embeddings::{Embeddings, Types};
use super::loader::{self, Loader};
use super::post_norm::{Encoder, Layer, Names, Shape};
use super::weights::Weights;
use crate::error::Result;
use espalier_tensor::Kernels;
use espalier_tensor::kernels::FrozenTable;
use serde_json::Value;

/// RoBERTa's too.
pub const NAMES: Names = Names {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    feed_forward_in: "intermediate.dense",
    feed_forward_out: "output.dense",
    feed_forward_norm: "output.LayerNorm",
};

/// What the tensors of the encoder begin with.
pub const STARTS: [&str; 3] = ["embeddings.", "encoder.", "pooler."];

/// Our name for a checkpoint's tensor: without the `bert.` prefix, `None` for heads and buffers.
pub fn canonical(name: &str) -> Option<String> {
    loader::behind(name, "bert.", &STARTS)
}

pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let config: Config = architecture::read(config)?;
    config.check("bert")?;
    let hidden = config.hidden_size;
    let mut loader = Loader::new(weights, kernels, config.layer_norm_eps);
    let embeddings = Embeddings {
        word: loader.table("embeddings.word_embeddings", config.vocab_size, hidden)?,
        position: loader.table("embeddings.position_embeddings", config.max_position_embeddings, hidden)?,
        first: 0,
        types: types(loader.table("embeddings.token_type_embeddings", config.type_vocab_size, hidden)?, &config),
        norm: loader.norm("embeddings.LayerNorm", hidden)?,
    };
    let encoder = assemble(&mut loader, &config, "bert", embeddings)?;
    Loaded::new(encoder, &config)
}

/// Layers and pooler behind the embeddings: RoBERTa's too.
pub fn assemble(loader: &mut Loader, config: &Config, head: &'static str, embeddings: Embeddings) -> Result<Encoder> {
    let shape = Shape {
        hidden: config.hidden_size,
        wide: config.intermediate_size,
        heads: config.num_attention_heads,
        distance: None,
    };
    let layers = (0..config.num_hidden_layers).map(|index| Layer::load(loader, index, (&NAMES, head), &shape));
    let layers = layers.collect::<Result<_>>()?;
    let facts = Facts {
        hidden_size: config.hidden_size,
        layers: config.num_hidden_layers,
        attention_heads: config.num_attention_heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings - embeddings.first as usize,
    };
    Ok(Encoder { facts, head, embeddings, layers, pooler: loader.pooler(config.hidden_size)? })
}

/// With one type there is nothing to tell apart, whatever the tokenizer makes of pairs.
fn types(table: FrozenTable, config: &Config) -> Types {
    if config.type_vocab_size == 1 { Types::First(table) } else { Types::Own(table) }
}
