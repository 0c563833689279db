//! MPNet (Song et al. 2020): BERT without token types, with padding rows at the start of the position table and a relative position
//! bias that all layers share.

use super::layers::{self, LayerTensorNames, PostNormConfig};
use super::{bert, roberta};
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks;
use crate::model::embeddings::{EmbeddingNorm, Embeddings, PositionEmbeddings, TokenTypes};
use crate::model::layer_weights::LayerPrefix;
use crate::model::loader::{self, BiasPresence, CheckpointLoader, WeightLayout};
use crate::model::stack::{ModelDimensions, Stack};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::{Backend, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub const ENTRY: ArchitectureEntry = ArchitectureEntry {
    model_type: "mpnet",
    classification_head: ClassificationHeadSpec::ROBERTA,
    lm_head: roberta::LM_HEAD,
    word_embeddings_path: "mpnet.embeddings.word_embeddings",
    weight_layout: WeightLayout::OutputInput,
    canonical_name: |name| loader::strip_model_prefix(name, "mpnet.", &bert::ENCODER_PREFIXES),
    load,
};

/// Fields of `config.json` that change the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "config_checks::default_layer_norm_eps")]
    layer_norm_eps: f64,
    #[serde(default = "config_checks::default_activation")]
    hidden_act: String,
    #[serde(default = "default_buckets")]
    relative_attention_num_buckets: usize,
}

fn default_buckets() -> usize {
    RELATIVE_ATTENTION_BUCKETS
}

// The next three are constants of transformers' code.

const RELATIVE_ATTENTION_BUCKETS: usize = 32;
/// Distances from here on share a bucket.
const MAX_RELATIVE_DISTANCE: usize = 128;
/// Row of the first position in the position table.
const POSITION_OFFSET: u32 = 2;

const BASE_MODEL_PREFIX: &str = "mpnet";

const LAYER_TENSOR_NAMES: LayerTensorNames = LayerTensorNames {
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    feed_forward_in: "intermediate.dense",
    feed_forward_out: "output.dense",
    feed_forward_norm: "output.LayerNorm",
};

fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = config_checks::parse_config(config)?;
    config.check()?;
    let (hidden, heads, max_positions) =
        (config.hidden_size, config.num_attention_heads, config.max_position_embeddings);
    let mut loader = CheckpointLoader::new(weights, backend, config.layer_norm_eps);
    let embeddings = Embeddings {
        words: loader.embedding("embeddings.word_embeddings", config.vocab_size, hidden)?,
        positions: Some(PositionEmbeddings {
            table: loader.embedding("embeddings.position_embeddings", max_positions, hidden)?,
            offset: POSITION_OFFSET,
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
    let bias_by_bucket =
        loader.weights.take_tensor("encoder.relative_attention_bias.weight", &[RELATIVE_ATTENTION_BUCKETS, heads])?;
    let bias = backend.upload(&bias_by_distance(&bias_by_bucket, heads))?;
    let mask = Some(Arc::new(AttentionMask { relative_position_bias: Some(bias), ..AttentionMask::default() }));
    let prefix = LayerPrefix { base_model: BASE_MODEL_PREFIX, layers: "encoder.layer" };
    let layer_config = PostNormConfig { hidden_size: hidden, intermediate_size: config.intermediate_size, heads, mask };
    let layers =
        layers::load_layers(&mut loader, prefix, &LAYER_TENSOR_NAMES, &layer_config, config.num_hidden_layers)?;
    let dimensions = ModelDimensions {
        hidden_size: hidden,
        attention_heads: heads,
        vocabulary_size: config.vocab_size,
        max_tokens: max_positions - POSITION_OFFSET as usize,
    };
    let pooler = loader.pooler(BASE_MODEL_PREFIX, hidden)?;
    let stack = Stack { dimensions, embeddings, layers, final_norm: None, pooler, decoder: None };
    LoadedArchitecture::new(stack, &config)
}

impl Config {
    fn check(&self) -> Result<()> {
        config_checks::require_value("mpnet", "hidden_act", &self.hidden_act, "gelu")?;
        let buckets = self.relative_attention_num_buckets.to_string();
        config_checks::require_value(
            "mpnet",
            "relative_attention_num_buckets",
            &buckets,
            &RELATIVE_ATTENTION_BUCKETS.to_string(),
        )?;
        if self.max_position_embeddings <= POSITION_OFFSET as usize {
            return config_checks::unsupported_model(format!(
                "max_position_embeddings must be above {POSITION_OFFSET} for mpnet"
            ));
        }
        let fields = ["hidden_size", "num_attention_heads"];
        config_checks::require_divisible_by_heads(fields, self.hidden_size, self.num_attention_heads)
    }
}

/// Score bias of every relative position from `-MAX_RELATIVE_DISTANCE` to `MAX_RELATIVE_DISTANCE`: `(buckets, heads)` →
/// `(heads, relative positions)`.
fn bias_by_distance(bias_by_bucket: &Tensor, heads: usize) -> Tensor {
    let max_distance = MAX_RELATIVE_DISTANCE as isize;
    let head_biases = |head: usize| {
        (-max_distance..=max_distance)
            .map(move |distance| bias_by_bucket.values[relative_position_bucket(distance) * heads + head])
    };
    Tensor::new([heads, 2 * MAX_RELATIVE_DISTANCE + 1], (0..heads).flat_map(head_biases).collect())
}

/// Bucket of a key position relative to the query (Raffel et al. 2020): half of the buckets for each direction; of these, half for
/// single distances and half for logarithmically growing ranges.
fn relative_position_bucket(distance: isize) -> usize {
    let (half, exact) = (RELATIVE_ATTENTION_BUCKETS / 2, RELATIVE_ATTENTION_BUCKETS / 4);
    let direction = if distance > 0 { half } else { 0 };
    let absolute_distance = distance.unsigned_abs();
    if absolute_distance < exact {
        return direction + absolute_distance;
    }
    let log_fraction =
        (absolute_distance as f32 / exact as f32).ln() / (MAX_RELATIVE_DISTANCE as f32 / exact as f32).ln();
    direction + (exact + (log_fraction * (half - exact) as f32) as usize).min(half - 1)
}
