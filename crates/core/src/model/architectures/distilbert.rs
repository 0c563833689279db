//! DistilBERT (Sanh et al. 2019): BERT with fewer layers, without token types and pooler.

use super::layers::{self, LayerTensorNames, PostNormConfig};
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks;
use crate::model::embeddings::{EmbeddingNorm, Embeddings, PositionEmbeddings, TokenTypes};
use crate::model::layer_weights::LayerPrefix;
use crate::model::lm_head::{LmHeadTensorNames, TransformNames};
use crate::model::loader::{self, BiasPresence, CheckpointLoader, WeightLayout};
use crate::model::stack::{ModelDimensions, Stack};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const ENTRY: ArchitectureEntry = ArchitectureEntry {
    model_type: "distilbert",
    classification_head: ClassificationHeadSpec::DISTILBERT,
    lm_head: LmHeadTensorNames {
        transform: Some(TransformNames { dense: "vocab_transform", norm: "vocab_layer_norm" }),
        bias: &["vocab_projector.bias"],
        decoder: "vocab_projector.weight",
    },
    word_embeddings_path: "distilbert.embeddings.word_embeddings",
    weight_layout: WeightLayout::OutputInput,
    canonical_name: |name| loader::strip_model_prefix(name, "distilbert.", &["embeddings.", "transformer."]),
    load,
};

/// Fields of `config.json` that change the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "config_checks::default_activation")]
    activation: String,
}

/// A constant of transformers' code.
const LAYER_NORM_EPS: f64 = 1e-12;

const BASE_MODEL_PREFIX: &str = "distilbert";

const LAYER_TENSOR_NAMES: LayerTensorNames = LayerTensorNames {
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    feed_forward_in: "ffn.lin1",
    feed_forward_out: "ffn.lin2",
    feed_forward_norm: "output_layer_norm",
};

/// Positions are read from the checkpoint, whether they are learned or sinusoidal.
fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = config_checks::parse_config(config)?;
    config_checks::require_value("distilbert", "activation", &config.activation, "gelu")?;
    config_checks::require_divisible_by_heads(["dim", "n_heads"], config.dim, config.n_heads)?;
    let (hidden, max_positions) = (config.dim, config.max_position_embeddings);
    let mut loader = CheckpointLoader::new(weights, backend, LAYER_NORM_EPS);
    let embeddings = Embeddings {
        words: loader.embedding("embeddings.word_embeddings", config.vocab_size, hidden)?,
        positions: Some(PositionEmbeddings {
            table: loader.embedding("embeddings.position_embeddings", max_positions, hidden)?,
            offset: 0,
        }),
        token_types: TokenTypes::Absent,
        token_dropout: None,
        norm: Some(EmbeddingNorm::load(
            &mut loader,
            BASE_MODEL_PREFIX,
            "embeddings.LayerNorm",
            hidden,
            BiasPresence::Present,
        )?),
    };
    let prefix = LayerPrefix { base_model: BASE_MODEL_PREFIX, layers: "transformer.layer" };
    let layer_config =
        PostNormConfig { hidden_size: hidden, intermediate_size: config.hidden_dim, heads: config.n_heads, mask: None };
    let layers = layers::load_layers(&mut loader, prefix, &LAYER_TENSOR_NAMES, &layer_config, config.n_layers)?;
    let dimensions = ModelDimensions {
        hidden_size: hidden,
        attention_heads: config.n_heads,
        vocabulary_size: config.vocab_size,
        max_tokens: max_positions,
    };
    let stack = Stack { dimensions, embeddings, layers, final_norm: None, pooler: None, decoder: None };
    LoadedArchitecture::new(stack, &config)
}
