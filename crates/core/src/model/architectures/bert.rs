//! BERT (Devlin et al. 2018): absolute positions, token types, post-norm layers, exact gelu, and a tanh pooler.

mod config;

pub use config::Config;

use super::post_norm::{Layer, LayerConfig, LayerTensorNames, PostNormEncoder};
use crate::error::Result;
use crate::model::architecture::{self, LoadedArchitecture, ModelDimensions};
use crate::model::embeddings::{Embeddings, TokenTypes};
use crate::model::loader::{self, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use espalier_tensor::backend::FrozenEmbedding;
use serde_json::Value;

/// RoBERTa's too.
pub const LAYER_TENSOR_NAMES: LayerTensorNames = LayerTensorNames {
    layers_prefix: "encoder.layer",
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
pub const ENCODER_PREFIXES: [&str; 3] = ["embeddings.", "encoder.", "pooler."];

/// Our name for a checkpoint's tensor: without the `bert.` prefix, `None` for heads and buffers.
pub fn canonical_name(name: &str) -> Option<String> {
    loader::strip_model_prefix(name, "bert.", &ENCODER_PREFIXES)
}

pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = architecture::parse_config(config)?;
    config.check("bert")?;
    let hidden = config.hidden_size;
    let mut loader = CheckpointLoader::new(weights, backend, config.layer_norm_eps);
    let embeddings = Embeddings {
        word_embeddings: loader.embedding("embeddings.word_embeddings", config.vocab_size, hidden)?,
        position_embeddings: loader.embedding(
            "embeddings.position_embeddings",
            config.max_position_embeddings,
            hidden,
        )?,
        position_offset: 0,
        token_types: token_types(
            loader.embedding("embeddings.token_type_embeddings", config.type_vocab_size, hidden)?,
            &config,
        ),
        norm: loader.norm("embeddings.LayerNorm", hidden)?,
    };
    let encoder = build_encoder(&mut loader, &config, "bert", embeddings)?;
    LoadedArchitecture::new(encoder, &config)
}

/// Layers and pooler behind the embeddings: RoBERTa's too.
pub fn build_encoder(
    loader: &mut CheckpointLoader,
    config: &Config,
    base_model_prefix: &'static str,
    embeddings: Embeddings,
) -> Result<PostNormEncoder> {
    let layer_config = LayerConfig {
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        heads: config.num_attention_heads,
        mask: None,
    };
    let layers = (0..config.num_hidden_layers)
        .map(|index| Layer::load(loader, index, (&LAYER_TENSOR_NAMES, base_model_prefix), &layer_config));
    let layers = layers.collect::<Result<_>>()?;
    let dimensions = ModelDimensions {
        hidden_size: config.hidden_size,
        layers: config.num_hidden_layers,
        attention_heads: config.num_attention_heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings - embeddings.position_offset as usize,
    };
    Ok(PostNormEncoder {
        dimensions,
        base_model_prefix,
        embeddings,
        layers,
        pooler: loader.pooler(config.hidden_size)?,
    })
}

/// With one type there is nothing to tell apart, whatever the tokenizer makes of pairs.
fn token_types(table: FrozenEmbedding, config: &Config) -> TokenTypes {
    if config.type_vocab_size == 1 { TokenTypes::AlwaysZero(table) } else { TokenTypes::PerToken(table) }
}
