//! Trait [`Backend`]: the operations that a device offers, forward and backward.
//!
//! Values are `f32` matrices `(rows, width)`. The trait is split by subject, so that an implementation has one file per
//! part. Every function fails only with an error of the device, as `Internal`.

use super::args::{
    Activation, AttentionInput, AttentionSaved, CrossEntropyOutput, DecodeAttentionInput, DenseGradients, Direction,
    KvCacheShape, LoraArgs, LoraGradients, NormSaved, PoolingKind, PrependedRows, RotaryTable, SaveForBackward,
};
use super::frozen::{FrozenEmbedding, FrozenLinear, FrozenNorm, NormKind};
use super::handles::{Buffer, KvBlock, Parameter};
use crate::error::Result;
use crate::quant::StoredWeight;
use crate::{LoraPrecision, RaggedLayout, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// A device's operations, object-safe: callers hold `Arc<dyn Backend>`.
pub trait Backend: ChannelOps + RotaryOps + GluOps + LoraOps + KvCacheOps + WeightOps + Send + Sync {
    /// Name of the backend, part of every job's specification.
    fn name(&self) -> &'static str;
    /// Number of tokens in a micro-batch of a training thread, part of every job's specification.
    fn preferred_micro_batch_tokens(&self) -> usize;

    /// Runs `task` with the products of the calling thread split over this many threads. By default on the calling thread
    /// alone.
    fn run_with_intra_op_threads(&self, _threads: usize, task: &mut dyn FnMut()) {
        task();
    }

    fn upload(&self, tensor: &Tensor) -> Result<Buffer>;
    fn download(&self, rows: &Buffer) -> Result<Tensor>;
    /// Uploads the tensors of an adapter and its head as one allocation.
    fn upload_parameters(&self, tensors: &[Tensor]) -> Result<Arc<[Parameter]>>;

    /// Sum of one row of each table, added to `accumulator`: `Σ tables[i][ids[i][row]]`.
    fn embed(&self, embeddings: &[(&FrozenEmbedding, &[u32])], accumulator: Option<Buffer>) -> Result<Buffer>;

    /// y = x·Wᵀ + b
    fn linear(&self, input: &Buffer, linear: &FrozenLinear) -> Result<Buffer>;
    /// dX = dY·W, added to `accumulator`.
    fn linear_backward(&self, gradient: &Buffer, linear: &FrozenLinear, accumulator: Option<Buffer>) -> Result<Buffer>;

    /// y = x·Wᵀ + b with a trainable weight `(output, input)` and bias `(output)`.
    fn dense(&self, input: &Buffer, weight: &Parameter, bias: &Parameter) -> Result<Buffer>;
    fn dense_backward_input(&self, gradient: &Buffer, weight: &Parameter) -> Result<Buffer>;
    fn dense_backward_parameters(&self, gradient: &Buffer, input: &Buffer) -> Result<DenseGradients>;

    fn add(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;
    /// Elementwise product.
    fn mul(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;
    fn scale(&self, rows: &Buffer, factor: f64) -> Result<Buffer>;

    /// Norm of `input`, or of `input + residual`.
    fn norm(
        &self,
        input: &Buffer,
        residual: Option<&Buffer>,
        norm: &FrozenNorm,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<NormSaved>)>;
    /// Gradient with respect to the input; the residual has the same.
    fn norm_backward(&self, gradient: &Buffer, saved: &NormSaved, norm: &FrozenNorm) -> Result<Buffer>;

    /// f(x), and f′(x) for the backward pass.
    fn activate(
        &self,
        activation: Activation,
        input: &Buffer,
        save: SaveForBackward,
    ) -> Result<(Buffer, Option<Buffer>)>;

    /// softmax(Q·Kᵀ/√d)·V within each sequence and head (Vaswani et al. 2017).
    fn attention(&self, input: AttentionInput, save: SaveForBackward) -> Result<(Buffer, Option<AttentionSaved>)>;
    /// Gradients with respect to query, key and value.
    fn attention_backward(
        &self,
        gradient: &Buffer,
        input: AttentionInput,
        saved: &AttentionSaved,
    ) -> Result<[Buffer; 3]>;

    /// Pools every sequence to one row `(sequences, width)`.
    fn pool(&self, input: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer>;
    fn pool_backward(&self, gradient: &Buffer, layout: &RaggedLayout, kind: PoolingKind) -> Result<Buffer>;

    fn slice_rows(&self, rows: &Buffer, range: Range<usize>) -> Result<Buffer>;
    /// The same values in rows of another width.
    fn reshape(&self, rows: &Buffer, width: usize) -> Result<Buffer>;

    /// −log softmax(logits)\[label\] of each row.
    fn cross_entropy(&self, logits: &Buffer, labels: &[u32]) -> Result<CrossEntropyOutput>;
}

/// Upload of the base model's frozen weights.
pub trait WeightOps {
    /// Uploads a linear map as `f32`, or as the device's reduced-precision type.
    fn freeze_linear(&self, weight: Tensor, bias: Option<Tensor>) -> Result<FrozenLinear>;
    fn freeze_norm(&self, kind: NormKind, weight: Tensor, bias: Tensor, epsilon: f64) -> Result<FrozenNorm>;
    fn freeze_embedding(&self, weight: Tensor) -> Result<FrozenEmbedding>;

    /// Uploads a linear map with a weight `(output, input)` in the backend's weight format, quantized where it says so.
    fn load_linear(&self, weight: StoredWeight, bias: Option<Tensor>) -> Result<FrozenLinear>;
    /// Uploads an embedding table in the backend's weight format.
    fn load_embedding(&self, weight: StoredWeight) -> Result<FrozenEmbedding>;
    /// Returns a linear map that shares the table's memory, if the layout allows both.
    fn tie_embeddings(&self, embedding: &FrozenEmbedding, bias: Option<Tensor>) -> Result<Option<FrozenLinear>>;

    /// Returns this backend with [`ActivationQuantization::Int8`](crate::ActivationQuantization::Int8), if it has such
    /// kernels: faster and less exact. Maps of [`WeightOps::load_linear`] are multiplied in int8, those of
    /// [`WeightOps::freeze_linear`] in their own precision.
    fn with_int8_activations(&self, lora: LoraPrecision) -> Option<Arc<dyn Backend>>;
    /// Builds the int8 copy of the weight now, instead of in the first call of [`Backend::linear`].
    fn prepack_linear(&self, _linear: &FrozenLinear) {}
}

/// Per-channel scale and shift, row insertion and row selection. Operations with a `target` and a `range` change those
/// rows only, in place if nothing else shares them.
pub trait ChannelOps {
    /// A trainable matrix as rows, a trainable vector as one row.
    fn parameter_as_rows(&self, parameter: &Parameter) -> Result<Buffer>;

    /// Multiplies each channel by its factor `(1, width)`.
    fn scale_channels(&self, target: Buffer, range: Range<usize>, factors: &Buffer) -> Result<Buffer>;
    /// Adds the bias `(1, width)` to each row.
    fn add_channels(&self, target: Buffer, range: Range<usize>, bias: &Buffer) -> Result<Buffer>;
    /// target + s·rows
    fn add_rows_scaled(&self, target: Buffer, range: Range<usize>, rows: &Buffer, scale: f64) -> Result<Buffer>;

    /// Sum over the rows `(1, width)`.
    fn sum_rows(&self, rows: &Buffer) -> Result<Buffer>;
    /// Sum over the rows of the elementwise products `(1, width)`.
    fn sum_row_products(&self, left: &Buffer, right: &Buffer) -> Result<Buffer>;

    /// Inserts each prefix before its sequences of `layout`. Prefixes are in the order of their sequences.
    fn prepend_rows(&self, rows: &Buffer, layout: &RaggedLayout, prefixes: &[PrependedRows<&Buffer>])
    -> Result<Buffer>;
    /// Gradients with respect to the rows of `layout`, and to one prefix of `prefix_rows` rows before each sequence.
    fn prepend_rows_backward(
        &self,
        gradient: &Buffer,
        layout: &RaggedLayout,
        prefix_rows: usize,
    ) -> Result<[Buffer; 2]>;

    /// The rows at `indices`; an index may repeat.
    fn gather_rows(&self, rows: &Buffer, indices: &[u32]) -> Result<Buffer>;
    /// Gradient with respect to all `row_count` rows.
    fn gather_rows_backward(&self, gradient: &Buffer, indices: &[u32], row_count: usize) -> Result<Buffer>;

    /// Sum over the inputs of W² `(output)`, on the host.
    fn weight_row_squared_norms(&self, linear: &FrozenLinear) -> Result<Tensor>;
}

/// Rotary position embeddings (Su et al. 2021).
pub trait RotaryOps {
    /// Rotates every head: its first half x and second half y become x·cos − y·sin and y·cos + x·sin. `positions` holds
    /// one position per row.
    fn apply_rotary(
        &self,
        rows: Buffer,
        heads: usize,
        rotary: &RotaryTable,
        positions: &[u32],
        direction: Direction,
    ) -> Result<Buffer>;
}

/// Gated linear units (Shazeer 2020) and channel slices of fused rows.
pub trait GluOps {
    /// f(a)·g `(rows, width)` from rows that hold a, then g `(rows, 2·width)`; and the factors of the backward pass, as wide
    /// as the input.
    fn glu(&self, activation: Activation, input: &Buffer, save: SaveForBackward) -> Result<(Buffer, Option<Buffer>)>;
    /// Gradient with respect to both halves `(rows, 2·width)`.
    fn glu_backward(&self, gradient: &Buffer, factors: &Buffer) -> Result<Buffer>;

    /// The given channels of every row.
    fn slice_channels(&self, rows: &Buffer, channels: Range<usize>) -> Result<Buffer>;
    /// Rows of `width` channels that hold `rows` at `channels` and zero elsewhere.
    fn scatter_channels(&self, rows: &Buffer, channels: Range<usize>, width: usize) -> Result<Buffer>;
}

/// Low-rank updates of linear maps (Hu et al. 2021).
pub trait LoraOps {
    /// target + s·(x·Aᵀ)·Bᵀ in the rows of `range`, and s·x·Aᵀ `(rows, rank)` for the backward pass. The input has the
    /// rows of the range.
    fn lora_add(&self, target: Buffer, range: Range<usize>, args: LoraArgs) -> Result<(Buffer, Buffer)>;
    /// Adds a separate update to each of several row ranges. Forward only.
    fn lora_add_batched(&self, target: Buffer, updates: &[(Range<usize>, LoraArgs)]) -> Result<Buffer> {
        let add = |target, (range, args): &(Range<usize>, LoraArgs)| Ok(self.lora_add(target, range.clone(), *args)?.0);
        updates.iter().try_fold(target, add)
    }
    /// Builds the copies of A and B that `lora_add` reads beside the originals. Returns their size in bytes.
    fn prepack_lora(&self, _a: &Parameter, _b: &Parameter) -> u64 {
        0
    }

    /// s·dY·B `(rows, rank)`, the input of the other two backward operations.
    fn lora_backward_projected(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer>;
    /// dX, added to `accumulator`.
    fn lora_backward_input(
        &self,
        projected_gradient: &Buffer,
        a: &Parameter,
        accumulator: Option<Buffer>,
    ) -> Result<Buffer>;
    /// Gradients of A and B, from the results of [`LoraOps::lora_backward_projected`] and [`LoraOps::lora_add`].
    fn lora_backward_parameters(
        &self,
        gradient: &Buffer,
        projected_gradient: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LoraGradients>;
}

/// Paged KV cache and attention to it.
pub trait KvCacheOps {
    /// Allocates an empty block.
    fn new_kv_block(&self, shape: KvCacheShape) -> Result<KvBlock>;
    /// Writes the rows `source` of key and value, `(rows, key heads · head width)` each, to the block's rows of a layer from
    /// a first row on. A shared block is copied first.
    fn write_kv_block(
        &self,
        block: &mut KvBlock,
        layer_and_row: [usize; 2],
        key_value: [&Buffer; 2],
        source: Range<usize>,
    ) -> Result<()>;
    /// softmax(Q·Kᵀ/√d)·V over the cached rows of each sequence. A row's result has the bits that it has in
    /// [`Backend::attention`] over the whole sequence.
    fn decode_attention(&self, input: DecodeAttentionInput) -> Result<Buffer>;
}
