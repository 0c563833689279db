//! The operations that a device must offer, forward and backward.
//!
//! Rows are `f32` matrices `(rows, width)`. A frozen weight has no backward operation of its own: there is nothing to
//! ask for its gradient with. Knows nothing of the tape, of layers or of adapters.

use super::{Packed, Tensor};
use crate::error::Result;

/// Rows on a device, cheap to clone.
#[derive(Debug, Clone)]
pub struct Buffer(pub(super) candle_core::Tensor);

/// A frozen linear map `y = x·Wᵀ + b` on a device, in whatever form it computes best with.
#[derive(Debug)]
pub struct FrozenLinear {
    /// `(output, input)`
    pub(super) weight: Buffer,
    /// `(output)`
    pub(super) bias: Option<Buffer>,
    pub input: usize,
    pub output: usize,
}

/// A frozen layer norm (Ba, Kiros, Hinton 2016).
#[derive(Debug)]
pub struct FrozenNorm {
    /// `(width)`
    pub(super) gain: Buffer,
    /// `(width)`
    pub(super) shift: Buffer,
    pub(super) epsilon: f64,
}

/// A frozen table of rows, looked up by index.
#[derive(Debug)]
pub struct FrozenTable {
    pub(super) rows: Buffer,
    pub width: usize,
}

impl FrozenLinear {
    /// Everything that is stored, for hashing.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        [Some(&self.weight), self.bias.as_ref()].into_iter().flatten()
    }
}

impl FrozenNorm {
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        [&self.gain, &self.shift].into_iter()
    }
}

impl FrozenTable {
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.rows)
    }
}

/// What a norm remembers for its backward pass.
#[derive(Debug, Clone)]
pub struct NormSaved {
    /// `(rows, width)`
    pub(super) normalised: Buffer,
    /// `(rows, 1)`: one over the standard deviation
    pub(super) inverse: Buffer,
}

/// What attention remembers: the probabilities, one buffer per run of sequences of equal length.
#[derive(Debug, Clone)]
pub struct AttentionSaved {
    pub(super) probabilities: Vec<Buffer>,
}

/// Queries, keys and values, each `(tokens, hidden)`, and how they are cut into sequences and heads.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    pub query: &'a Buffer,
    pub key: &'a Buffer,
    pub value: &'a Buffer,
    pub layout: &'a Packed,
    pub heads: usize,
}

/// How the rows of a sequence become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    Mean,
    First,
}

/// The gradients of the loss by a trainable linear map's weight `(output, input)` and bias `(output)`.
pub struct DenseGradients {
    pub weight: Buffer,
    pub bias: Buffer,
}

/// The gradients of the loss by A `(rank, input)` and B `(output, rank)`.
pub struct LowRankGradients {
    pub a: Buffer,
    pub b: Buffer,
}

/// The sum of the examples' losses and its gradient by the logits.
pub struct CrossEntropy {
    pub loss: f64,
    /// `(rows, labels)`
    pub gradient: Buffer,
}

/// A device's arithmetic. Every function fails only with what the device reports, as `Internal`.
pub trait Kernels: Send + Sync {
    /// The name of this kernel set, part of every job's specification.
    fn name(&self) -> &'static str;

    fn upload(&self, tensor: &Tensor) -> Result<Buffer>;
    fn download(&self, rows: &Buffer) -> Result<Tensor>;

    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear>;
    fn freeze_norm(&self, gain: Tensor, shift: Tensor, epsilon: f64) -> Result<FrozenNorm>;
    fn freeze_table(&self, rows: Tensor) -> Result<FrozenTable>;

    /// The sum of one row of each table: `Σ tables[i][ids[i][row]]`.
    fn embed(&self, tables: &[(&FrozenTable, &[u32])]) -> Result<Buffer>;

    fn linear(&self, input: &Buffer, map: &FrozenLinear) -> Result<Buffer>;
    /// dX = dY·W
    fn linear_backward(&self, gradient: &Buffer, map: &FrozenLinear) -> Result<Buffer>;

    /// y = x·Wᵀ + b with a trainable weight `(output, input)` and bias `(output)`.
    fn dense(&self, input: &Buffer, weight: &Buffer, bias: &Buffer) -> Result<Buffer>;
    fn dense_backward_input(&self, gradient: &Buffer, weight: &Buffer) -> Result<Buffer>;
    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients>;

    /// s·(x·Aᵀ)·Bᵀ, and x·Aᵀ `(rows, rank)` for the backward pass.
    fn low_rank(&self, input: &Buffer, a: &Buffer, b: &Buffer, scale: f64) -> Result<(Buffer, Buffer)>;
    fn low_rank_backward_input(&self, gradient: &Buffer, a: &Buffer, b: &Buffer, scale: f64) -> Result<Buffer>;
    fn low_rank_backward_parameters(
        &self,
        gradient: &Buffer,
        input: &Buffer,
        projected: &Buffer,
        b: &Buffer,
        scale: f64,
    ) -> Result<LowRankGradients>;

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;
    /// Element by element.
    fn multiply(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;
    fn scale(&self, rows: &Buffer, factor: f64) -> Result<Buffer>;

    fn norm(&self, input: &Buffer, norm: &FrozenNorm) -> Result<(Buffer, NormSaved)>;
    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer>;

    /// x·Φ(x), the exact form with erf (Hendrycks & Gimpel 2016).
    fn gelu(&self, input: &Buffer) -> Result<Buffer>;
    fn gelu_backward(&self, gradient: &Buffer, input: &Buffer) -> Result<Buffer>;

    fn tanh(&self, input: &Buffer) -> Result<Buffer>;
    /// From the output, not the input: dX = dY·(1 − y²).
    fn tanh_backward(&self, gradient: &Buffer, output: &Buffer) -> Result<Buffer>;

    /// softmax(Q·Kᵀ/√d)·V within each sequence and head (Vaswani et al. 2017).
    fn attention(&self, inputs: Attention) -> Result<(Buffer, AttentionSaved)>;
    /// The gradients by query, key and value.
    fn attention_backward(&self, gradient: &Buffer, inputs: Attention, saved: &AttentionSaved) -> Result<[Buffer; 3]>;

    /// One row per sequence.
    fn pool(&self, input: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer>;
    fn pool_backward(&self, gradient: &Buffer, layout: &Packed, pool: Pool) -> Result<Buffer>;

    /// `count` rows from `start` on.
    fn narrow(&self, rows: &Buffer, start: usize, count: usize) -> Result<Buffer>;
    fn concat(&self, parts: &[Buffer]) -> Result<Buffer>;

    /// −log softmax(logits)[label], summed over the rows.
    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropy>;
}
