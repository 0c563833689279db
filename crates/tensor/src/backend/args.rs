//! Arguments and results of the operations in [`Backend`](super::Backend).

use super::handles::{Buffer, KvBlock, Parameter};
use crate::RaggedLayout;
use crate::attention_mask::{AttentionMask, MaskContext};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use utoipa::ToSchema;

/// Whether an operation returns the tensors that its backward pass needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveForBackward {
    No,
    Yes,
}

/// Elementwise activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·Φ(x), the exact form with erf (Hendrycks & Gimpel 2016).
    Gelu,
    /// GELU's tanh approximation, as in GPT-2: ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    GeluTanh,
    Tanh,
    Relu,
    /// x·σ(x), also called swish (Elfwing et al. 2017).
    Silu,
}

/// Reduction of a sequence's rows to one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingKind {
    /// Mean of the real tokens.
    Mean,
    /// First row, virtual tokens included.
    First,
    Last,
}

/// Saved activations of a norm.
#[derive(Debug, Clone)]
pub struct NormSaved {
    /// `(rows, width)`
    pub(super) normalised: Buffer,
    /// One over the standard deviation `(rows, 1)`.
    pub(super) inverse_std: Buffer,
}

/// Saved probabilities of attention, in the backend's own layout.
#[derive(Debug, Clone)]
pub struct AttentionSaved {
    pub(super) probabilities: Vec<Buffer>,
}

/// Gradients of a trainable linear map.
pub struct DenseGradients {
    /// `(output, input)`
    pub weight: Buffer,
    /// `(output)`
    pub bias: Buffer,
}

/// Cross entropy per row, and the gradient of the sum of the losses.
pub struct CrossEntropyOutput {
    pub losses: Vec<f64>,
    /// `(rows, labels)`
    pub gradient: Buffer,
}

/// Queries, keys and values of attention over a ragged batch.
///
/// A sequence may have fewer query rows than key rows. Keys and values may have fewer heads than the queries: then
/// neighbouring query heads share one (grouped-query attention, Ainslie et al. 2023).
#[derive(Debug, Clone, Copy)]
pub struct AttentionInput<'a> {
    /// `(rows, heads · head width)`
    pub query: &'a Buffer,
    /// `(rows, key heads · head width)`
    pub key: &'a Buffer,
    /// `(rows, key heads · head width)`
    pub value: &'a Buffer,
    /// Rows of the sequences in `query`.
    pub query_layout: &'a RaggedLayout,
    /// Rows of the sequences in `key` and `value`.
    pub key_layout: &'a RaggedLayout,
    pub heads: usize,
    /// `None`: every query row attends to every key row of its sequence.
    pub mask: Option<MaskContext<'a>>,
}

/// Rows of one KV block: a whole number of SIMD vectors of keys.
pub const KV_BLOCK_ROWS: usize = 32;

/// Dimensions of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheShape {
    pub layers: usize,
    /// Heads of the keys, and as many of the values.
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl KvCacheShape {
    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * KV_BLOCK_ROWS * size_of::<f32>()
    }

    /// Number of blocks that hold this many rows.
    pub fn blocks_for_rows(rows: usize) -> usize {
        rows.div_ceil(KV_BLOCK_ROWS)
    }
}

/// Cached keys and values of one sequence in one layer.
#[derive(Debug, Clone, Copy)]
pub struct CachedSequence<'a> {
    pub blocks: &'a [KvBlock],
    /// Cached rows, the adapter's prefix and the rows of this step included.
    pub rows: usize,
    /// Rows of the adapter's key and value prefix.
    pub prefix_rows: usize,
}

/// Queries of some sequences in one layer, and the KV cache that they attend to.
pub struct DecodeAttentionInput<'a> {
    pub layer: usize,
    /// `(rows, heads · head width)`: the last rows of each sequence.
    pub query: &'a Buffer,
    /// Rows of the sequences in `query`.
    pub query_layout: &'a RaggedLayout,
    pub heads: usize,
    /// A causal mask.
    pub mask: &'a AttentionMask,
    pub shape: KvCacheShape,
    /// One entry for each sequence.
    pub sequences: &'a [CachedSequence<'a>],
}

/// Rows to insert before each of some neighbouring sequences.
#[derive(Debug, Clone)]
pub struct PrependedRows<T> {
    pub sequences: Range<usize>,
    /// `(prefix rows, width)`
    pub rows: T,
}

impl<T: Copy> PrependedRows<T> {
    /// Returns the included sequences as contiguous ranges.
    pub fn restrict_to(&self, is_included: impl Fn(usize) -> bool) -> Vec<Self> {
        let mut contiguous: Vec<Self> = Vec::new();
        for sequence in self.sequences.clone().filter(|sequence| is_included(*sequence)) {
            match contiguous.last_mut() {
                Some(run) if run.sequences.end == sequence => run.sequences.end += 1,
                _ => contiguous.push(Self { sequences: sequence..sequence + 1, rows: self.rows }),
            }
        }
        contiguous
    }
}

/// Low-rank update `s·(x·Aᵀ)·Bᵀ` (Hu et al. 2021).
#[derive(Debug, Clone, Copy)]
pub struct LoraArgs<'a> {
    /// `(rows, input)`
    pub input: &'a Buffer,
    /// `(rank, input)`
    pub a: &'a Parameter,
    /// `(output, rank)`
    pub b: &'a Parameter,
    pub scale: f64,
}

/// Gradients of a low-rank update.
pub struct LoraGradients {
    /// `(rank, input)`
    pub a: Buffer,
    /// `(output, rank)`
    pub b: Buffer,
}

/// Cosines and sines of the rotary angles at every position.
#[derive(Debug)]
pub struct RotaryTable {
    /// `(positions, head width / 2)`
    pub(crate) cosines: Buffer,
    /// `(positions, head width / 2)`
    pub(crate) sines: Buffer,
}

/// Direction of the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    /// The transposed rotation, for the backward pass.
    Inverse,
}
