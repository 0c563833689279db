//! The operations that a device must offer, forward and backward.
//!
//! Rows are `f32` matrices `(rows, width)`. A frozen weight has no backward operation of its own: there is nothing to
//! ask for its gradient with. Knows nothing of the tape, of layers or of adapters.

use super::attention_mask::MaskContext;
use super::channel_ops::ChannelOps;
use super::cpu::{Int8Matrix, Matrix, QuantizedWeight};
use super::decode_attention::DecodeAttentionOps;
pub use super::frozen::{FrozenEmbedding, FrozenLinear, FrozenNorm, NormKind};
use super::glu::GluOps;
pub use super::lora::{LoraArgs, LoraGradients, LoraOps};
use super::rotary::RotaryOps;
use super::weight_ops::WeightOps;
use super::{RaggedLayout, Tensor};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use utoipa::ToSchema;

/// Rows on a device, cheap to clone. Only the kernels that made them can compute with them.
#[derive(Debug, Clone)]
pub struct Buffer(pub(super) Storage);

#[derive(Debug, Clone)]
pub(super) enum Storage {
    /// Of the kernels in `cpu`.
    Cpu(Matrix),
    /// Of the same: a frozen weight `(output, input)` in fewer bits.
    Quantized(Arc<QuantizedWeight>),
    /// Of those in `candle`.
    Candle(candle_core::Tensor),
}

impl Buffer {
    pub(super) fn as_matrix(&self) -> &Matrix {
        match &self.0 {
            Storage::Cpu(matrix) => matrix,
            Storage::Quantized(_) => unreachable!("a frozen weight is no rows"),
            Storage::Candle(_) => unreachable!("rows stay with the kernels that made them"),
        }
    }

    pub(super) fn as_candle_tensor(&self) -> &candle_core::Tensor {
        match &self.0 {
            Storage::Candle(tensor) => tensor,
            Storage::Cpu(_) | Storage::Quantized(_) => unreachable!("rows stay with the kernels that made them"),
        }
    }

    pub fn rows(&self) -> usize {
        match &self.0 {
            Storage::Cpu(matrix) => matrix.rows(),
            Storage::Quantized(weight) => weight.out_features(),
            Storage::Candle(tensor) => tensor.dims().first().copied().unwrap_or(1),
        }
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        match &self.0 {
            Storage::Cpu(matrix) => matrix.width(),
            Storage::Quantized(weight) => weight.in_features(),
            Storage::Candle(tensor) => tensor.dims().last().copied().unwrap_or(1),
        }
    }
}

/// A trainable tensor on a device, in the forms that its operations read.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// As a forward pass reads it.
    pub(super) value: Buffer,
    /// As a backward pass does, where that differs; made by the first that asks.
    pub(super) backward_value: Arc<OnceLock<Buffer>>,
    /// As one does that rounds, on CPUs; likewise.
    pub(super) int8_value: Arc<OnceLock<Int8Matrix>>,
}

impl Parameter {
    pub(super) fn new(forward: Buffer) -> Self {
        Self { value: forward, backward_value: Arc::default(), int8_value: Arc::default() }
    }
}

/// What a norm remembers for its backward pass.
#[derive(Debug, Clone)]
pub struct NormSaved {
    /// `(rows, width)`
    pub(super) normalised: Buffer,
    /// `(rows, 1)`: one over the standard deviation
    pub(super) inverse_std: Buffer,
}

/// What attention remembers: the probabilities, as the kernels like them.
#[derive(Debug, Clone)]
pub struct AttentionSaved {
    pub(super) probabilities: Vec<Buffer>,
}

/// Queries `(rows, heads · head width)`, keys and values, and how they are cut into sequences and heads. A sequence may ask
/// with fewer rows than it has keys. Keys and values may have fewer heads, which neighbouring heads of queries then share
/// (Ainslie et al. 2023).
#[derive(Debug, Clone, Copy)]
pub struct AttentionInput<'a> {
    pub query: &'a Buffer,
    pub key: &'a Buffer,
    pub value: &'a Buffer,
    /// The sequences' rows in `query`.
    pub query_layout: &'a RaggedLayout,
    /// Their rows in `key` and `value`.
    pub key_layout: &'a RaggedLayout,
    pub heads: usize,
    /// Where distances count.
    pub mask: Option<MaskContext<'a>>,
}

/// Whether an operation is to keep what its backward pass needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveForBackward {
    No,
    Yes,
}

/// A function of single numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·Φ(x), the exact form with erf (Hendrycks & Gimpel 2016).
    Gelu,
    /// The same by tanh: ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), GPT-2's.
    GeluTanh,
    Tanh,
    Relu,
    /// x·σ(x), also called swish (Elfwing et al. 2017).
    Silu,
}

/// How the rows of a sequence become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingKind {
    /// Of the real tokens.
    Mean,
    /// Virtual or not.
    First,
    Last,
}

/// The gradients of the loss by a trainable linear map's weight `(output, input)` and bias `(output)`.
pub struct DenseGradients {
    pub weight: Buffer,
    pub bias: Buffer,
}

/// The losses of rows, and the gradient of their sum by the logits.
pub struct CrossEntropyOutput {
    pub losses: Vec<f64>,
    /// `(rows, labels)`
    pub gradient: Buffer,
}

/// A device's arithmetic. Every function fails only with what the device reports, as `Internal`.
pub trait Backend: ChannelOps + RotaryOps + GluOps + LoraOps + DecodeAttentionOps + WeightOps + Send + Sync {
    /// The name of this kernel set, part of every job's specification.
    fn name(&self) -> &'static str;
    /// Tokens that a training thread best computes at once: part of every job's specification.
    fn preferred_micro_batch_tokens(&self) -> usize;

    fn upload(&self, tensor: &Tensor) -> Result<Buffer>;
    fn download(&self, rows: &Buffer) -> Result<Tensor>;
    /// The tensors of an adapter and its head, together.
    fn upload_parameters(&self, tensors: &[Tensor]) -> Result<Arc<[Parameter]>>;

    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear>;
    fn freeze_norm(&self, kind: NormKind, weight: Tensor, bias: Tensor, epsilon: f64) -> Result<FrozenNorm>;
    fn freeze_embedding(&self, weight: Tensor) -> Result<FrozenEmbedding>;

    /// The sum of one row of each table, in their order, onto `onto`: `Σ tables[i][ids[i][row]]`.
    fn embed(&self, embeddings: &[(&FrozenEmbedding, &[u32])], accumulator: Option<Buffer>) -> Result<Buffer>;

    fn linear(&self, input: &Buffer, linear: &FrozenLinear) -> Result<Buffer>;
    /// dX = dY·W, added to `onto`.
    fn linear_backward(&self, gradient: &Buffer, linear: &FrozenLinear, accumulator: Option<Buffer>) -> Result<Buffer>;

    /// y = x·Wᵀ + b with a trainable weight `(output, input)` and bias `(output)`.
    fn dense(&self, input: &Buffer, weight: &Parameter, bias: &Parameter) -> Result<Buffer>;
    fn dense_backward_input(&self, gradient: &Buffer, weight: &Parameter) -> Result<Buffer>;
    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients>;

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;
    /// Element by element.
    fn mul(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;
    fn scale(&self, rows: &Buffer, factor: f64) -> Result<Buffer>;

    /// The norm of `input`, or of its sum with `residual`.
    fn norm(
        &self,
        input: &Buffer,
        residual: Option<&Buffer>,
        norm: &FrozenNorm,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<NormSaved>)>;
    /// The gradient by the input, and so by the residual.
    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer>;

    /// With its derivative, element by element.
    fn activate(
        &self,
        activation: Activation,
        input: &Buffer,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<Buffer>)>;

    /// softmax(Q·Kᵀ/√d)·V within each sequence and head (Vaswani et al. 2017).
    fn attention(&self, input: AttentionInput, save: SaveForBackward) -> Result<(Buffer, Option<AttentionSaved>)>;
    /// The gradients by query, key and value.
    fn attention_backward(
        &self,
        gradient: &Buffer,
        input: AttentionInput,
        saved: &AttentionSaved,
    ) -> Result<[Buffer; 3]>;

    /// One row per sequence.
    fn kind(&self, input: &Buffer, layout: &RaggedLayout, pool: PoolingKind) -> Result<Buffer>;
    fn pool_backward(&self, gradient: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer>;

    fn slice_rows(&self, rows: &Buffer, range: Range<usize>) -> Result<Buffer>;
    /// The same numbers in rows of another width.
    fn reshape(&self, rows: &Buffer, width: usize) -> Result<Buffer>;

    /// −log softmax(logits)[label] of each row.
    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropyOutput>;
}
