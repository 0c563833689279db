//! MPNet (Song et al. 2020): BERT without token types, with positions counted on from those of padding, and with something
//! added to every score that depends on the distance alone, the same in all layers.

use super::bert;
use super::post_norm::{Layer, LayerConfig, LayerTensorNames, PostNormEncoder};
use crate::error::Result;
use crate::model::architecture::{self, LoadedArchitecture, ModelDimensions};
use crate::model::embeddings::{Embeddings, TokenTypes};
use crate::model::loader::{self, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::{Backend, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The fields of `config.json` that change arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "default_activation")]
    hidden_act: String,
    #[serde(default = "default_buckets")]
    relative_attention_num_buckets: usize,
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_activation() -> String {
    "gelu".to_string()
}

fn default_buckets() -> usize {
    RELATIVE_ATTENTION_BUCKETS
}

/// Fixed in transformers' code, as are the next two.
const RELATIVE_ATTENTION_BUCKETS: usize = 32;
/// Distances from here on share a bucket.
const MAX_RELATIVE_DISTANCE: usize = 128;
/// The row of a sequence's first position.
const POSITION_OFFSET: u32 = 2;

/// What the headed model calls the encoder.
const BASE_MODEL_PREFIX: &str = "mpnet";

const LAYER_TENSOR_NAMES: LayerTensorNames = LayerTensorNames {
    layers_prefix: "encoder.layer",
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    feed_forward_in: "intermediate.dense",
    feed_forward_out: "output.dense",
    feed_forward_norm: "output.LayerNorm",
};

/// Our name for a checkpoint's tensor: without the `mpnet.` prefix, `None` for heads and buffers.
pub fn canonical_name(name: &str) -> Option<String> {
    loader::strip_model_prefix(name, "mpnet.", &bert::ENCODER_PREFIXES)
}

pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = architecture::parse_config(config)?;
    config.check()?;
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let mut loader = CheckpointLoader::new(weights, backend, config.layer_norm_eps);
    let embeddings = Embeddings {
        word_embeddings: loader.embedding("embeddings.word_embeddings", config.vocab_size, hidden)?,
        position_embeddings: loader.embedding(
            "embeddings.position_embeddings",
            config.max_position_embeddings,
            hidden,
        )?,
        position_offset: POSITION_OFFSET,
        token_types: TokenTypes::Absent,
        norm: loader.norm("embeddings.LayerNorm", hidden)?,
    };
    let bias_by_bucket =
        loader.weights.take_tensor("encoder.relative_attention_bias.weight", &[RELATIVE_ATTENTION_BUCKETS, heads])?;
    let bias = backend.upload(&bias_by_distance(&bias_by_bucket, heads))?;
    let mask = Some(Arc::new(AttentionMask { relative_position_bias: Some(bias), ..AttentionMask::default() }));
    let layer_config = LayerConfig { hidden_size: hidden, intermediate_size: config.intermediate_size, heads, mask };
    let layers = (0..config.num_hidden_layers)
        .map(|index| Layer::load(&mut loader, index, (&LAYER_TENSOR_NAMES, BASE_MODEL_PREFIX), &layer_config));
    let layers = layers.collect::<Result<_>>()?;
    let dimensions = ModelDimensions {
        hidden_size: hidden,
        layers: config.num_hidden_layers,
        attention_heads: heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings - POSITION_OFFSET as usize,
    };
    let pooler = loader.pooler(hidden)?;
    LoadedArchitecture::new(
        PostNormEncoder { dimensions, base_model_prefix: BASE_MODEL_PREFIX, embeddings, layers, pooler },
        &config,
    )
}

impl Config {
    fn check(&self) -> Result<()> {
        architecture::require_value("mpnet", "hidden_act", &self.hidden_act, "gelu")?;
        let buckets = self.relative_attention_num_buckets.to_string();
        architecture::require_value(
            "mpnet",
            "relative_attention_num_buckets",
            &buckets,
            &RELATIVE_ATTENTION_BUCKETS.to_string(),
        )?;
        if self.max_position_embeddings <= POSITION_OFFSET as usize {
            return architecture::unsupported_model(format!(
                "max_position_embeddings must be above {POSITION_OFFSET} for mpnet"
            ));
        }
        architecture::require_divisible_by_heads(self.hidden_size, self.num_attention_heads)
    }
}

/// `(heads, 2·reach + 1)` from `(buckets, heads)`.
fn bias_by_distance(bias_by_bucket: &Tensor, heads: usize) -> Tensor {
    let max_distance = MAX_RELATIVE_DISTANCE as isize;
    let of = |head: usize| {
        (-max_distance..=max_distance)
            .map(move |distance| bias_by_bucket.values[relative_position_bucket(distance) * heads + head])
    };
    Tensor::new([heads, 2 * MAX_RELATIVE_DISTANCE + 1], (0..heads).flat_map(of).collect())
}

/// The bucket of a distance from the row that asks to the one that is asked: half of them for each side, half of these for
/// single distances, and the others for ranges that grow like a logarithm.
fn relative_position_bucket(distance: isize) -> usize {
    let (half, exact) = (RELATIVE_ATTENTION_BUCKETS / 2, RELATIVE_ATTENTION_BUCKETS / 4);
    let side = if distance > 0 { half } else { 0 };
    let absolute_distance = distance.unsigned_abs();
    if absolute_distance < exact {
        return side + absolute_distance;
    }
    let log_fraction =
        (absolute_distance as f32 / exact as f32).ln() / (MAX_RELATIVE_DISTANCE as f32 / exact as f32).ln();
    side + (exact + (log_fraction * (half - exact) as f32) as usize).min(half - 1)
}
