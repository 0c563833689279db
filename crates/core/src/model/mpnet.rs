//! MPNet (Song et al. 2020): BERT without token types, with positions counted on from those of padding, and with something
//! added to every score that depends on the distance alone, the same in all layers.

use super::architecture::{self, Facts, Loaded};
use super::bert;
use super::embeddings::{Embeddings, Types};
use super::loader::{self, Loader};
use super::post_norm::{Encoder, Layer, Names, Shape};
use super::weights::Weights;
use crate::error::Result;
use espalier_tensor::distance::Distance;
use espalier_tensor::{Kernels, Tensor};
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
    BUCKETS
}

/// Fixed in transformers' code, as are the next two.
const BUCKETS: usize = 32;
/// Distances from here on share a bucket.
const FURTHEST: usize = 128;
/// The row of a sequence's first position.
const FIRST: u32 = 2;

/// What the headed model calls the encoder.
const HEAD: &str = "mpnet";

const NAMES: Names = Names {
    layers: "encoder.layer",
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
pub fn canonical(name: &str) -> Option<String> {
    loader::behind(name, "mpnet.", &bert::STARTS)
}

pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let config: Config = architecture::read(config)?;
    config.check()?;
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let mut loader = Loader::new(weights, kernels, config.layer_norm_eps);
    let embeddings = Embeddings {
        word: loader.table("embeddings.word_embeddings", config.vocab_size, hidden)?,
        position: loader.table("embeddings.position_embeddings", config.max_position_embeddings, hidden)?,
        first: FIRST,
        types: Types::None,
        norm: loader.norm("embeddings.LayerNorm", hidden)?,
    };
    let by_bucket = loader.weights.take("encoder.relative_attention_bias.weight", &[BUCKETS, heads])?;
    let bias = kernels.upload(&by_distance(&by_bucket, heads))?;
    let distance = Some(Arc::new(Distance { bias: Some(bias), ..Distance::default() }));
    let shape = Shape { hidden, wide: config.intermediate_size, heads, distance };
    let layers = (0..config.num_hidden_layers).map(|index| Layer::load(&mut loader, index, (&NAMES, HEAD), &shape));
    let layers = layers.collect::<Result<_>>()?;
    let facts = Facts {
        hidden_size: hidden,
        layers: config.num_hidden_layers,
        attention_heads: heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings - FIRST as usize,
    };
    let pooler = loader.pooler(hidden)?;
    Loaded::new(Encoder { facts, head: HEAD, embeddings, layers, pooler }, &config)
}

impl Config {
    fn check(&self) -> Result<()> {
        architecture::only("mpnet", "hidden_act", &self.hidden_act, "gelu")?;
        let buckets = self.relative_attention_num_buckets.to_string();
        architecture::only("mpnet", "relative_attention_num_buckets", &buckets, &BUCKETS.to_string())?;
        if self.max_position_embeddings <= FIRST as usize {
            return architecture::unsupported(format!("max_position_embeddings must be above {FIRST} for mpnet"));
        }
        architecture::divisible(self.hidden_size, self.num_attention_heads)
    }
}

/// `(heads, 2·reach + 1)` from `(buckets, heads)`.
fn by_distance(by_bucket: &Tensor, heads: usize) -> Tensor {
    let reach = FURTHEST as isize;
    let of = |head: usize| (-reach..=reach).map(move |distance| by_bucket.values[bucket(distance) * heads + head]);
    Tensor::new([heads, 2 * FURTHEST + 1], (0..heads).flat_map(of).collect())
}

/// The bucket of a distance from the row that asks to the one that is asked: half of them for each side, half of these for
/// single distances, and the others for ranges that grow like a logarithm.
fn bucket(distance: isize) -> usize {
    let (half, exact) = (BUCKETS / 2, BUCKETS / 4);
    let side = if distance > 0 { half } else { 0 };
    let away = distance.unsigned_abs();
    if away < exact {
        return side + away;
    }
    let share = (away as f32 / exact as f32).ln() / (FURTHEST as f32 / exact as f32).ln();
    side + (exact + (share * (half - exact) as f32) as usize).min(half - 1)
}
