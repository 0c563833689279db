//! softmax(Q·Kᵀ/√d)·V within each sequence and head (Vaswani et al. 2017), and its backward pass.
//!
//! Computes one sequence and head at a time, with scores that stay in the cache. Nothing is padded but the last vector
//! of a row. Under a mask the query rows are taken in blocks, each with the keys that it attends to.

mod decode;
mod head_tasks;
mod kv_block;
mod softmax;

pub use head_tasks::AttentionInputs;

use super::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use super::matrix::{Matrix, MatrixBuf};
use super::packing;
use super::simd::Isa;
use head_tasks::{HeadTask, QueryBlock};
use softmax::{Softmax, SoftmaxBackward, padded_len};
use std::ops::Range;

/// Operands of the products of each head.
struct AttentionKernel<'a> {
    isa: Isa,
    inputs: AttentionInputs<'a>,
    head_width: usize,
}

/// Keys or values of one head, packed in panels of sixteen rows.
struct PackedAttentionHead(MatrixBuf);

/// Columns of one head in a range of rows.
struct HeadView<'a> {
    rows: Range<usize>,
    matrix: &'a Matrix,
    column: usize,
    head_width: usize,
}

/// Destination of a head's product.
struct HeadOutput {
    rows: Range<usize>,
    column: usize,
    /// Whether the product is added to the output.
    accumulate: bool,
}

impl PackedAttentionHead {
    fn new(inputs: &AttentionInputs) -> Self {
        Self(MatrixBuf::new(padded_len(inputs.max_key_len()), inputs.head_width()))
    }

    /// Packs the rows of the task. Query heads that share a key head reuse the panels of the first.
    fn pack(&mut self, matrix: &Matrix, task: &HeadTask, head_width: usize) {
        if task.is_first_of_group {
            let rows = task.key_rows.clone().map(|row| &matrix.row(row)[task.kv_column..task.kv_column + head_width]);
            packing::pack_rows_into(
                &mut self.0.as_mut_padded_slice()[..padded_len(task.key_rows.len()) * head_width],
                head_width,
                rows,
            );
        }
    }
}

impl<'a> AttentionKernel<'a> {
    fn new(isa: Isa, inputs: AttentionInputs<'a>) -> Self {
        Self { isa, inputs, head_width: inputs.head_width() }
    }

    /// `out = lhs·rhsᵀ` for a block's query rows and keys.
    fn scores(&self, lhs: &Matrix, rhs: &PackedAttentionHead, task: &HeadTask, block: &QueryBlock, out: &mut [f32]) {
        let (head_width, rows) = (self.head_width, block.query_rows(&task.query_rows));
        self.isa.run(Gemm {
            m: rows.len(),
            k: head_width,
            n: padded_len(block.keys.len()),
            lhs: Lhs::row_major(&lhs.as_padded_slice()[rows.start * lhs.width() + task.query_column..], lhs.width()),
            rhs: Rhs::packed(&rhs.0.as_padded_slice()[block.keys.start * head_width..], head_width),
            init: AccumulatorInit::Zero,
            out,
            out_stride: padded_len(task.key_rows.len()),
        });
    }

    /// Probabilities of a block's rows, from its first key on.
    fn probabilities(&self, keys: &PackedAttentionHead, task: &HeadTask, block: &QueryBlock, out: &mut [f32]) {
        self.scores(self.inputs.query, keys, task, block, out);
        let (row_stride, length, scale) = (padded_len(task.key_rows.len()), block.keys.len(), self.inputs.scale());
        let mask = self.inputs.score_mask(task, block);
        self.isa.run(Softmax { scores: out, row_stride, length, scale, mask });
    }

    /// `out = lhs·values` for one head, or added to the output.
    fn weighted_sum(&self, lhs: Lhs, values: HeadView, destination: HeadOutput, out: &mut MatrixBuf) {
        let (hidden_size, out_stride) = (values.matrix.width(), out.width());
        self.isa.run(Gemm {
            m: destination.rows.len(),
            k: values.rows.len(),
            n: values.head_width,
            lhs,
            rhs: Rhs::row_major(
                &values.matrix.as_padded_slice()[values.rows.start * hidden_size + values.column..],
                hidden_size,
            ),
            init: if destination.accumulate { AccumulatorInit::Output } else { AccumulatorInit::Zero },
            out: &mut out.as_mut_padded_slice()[destination.rows.start * out_stride + destination.column..],
            out_stride,
        });
    }
}

/// Forward pass. `saved` has room for [`AttentionInputs::saved_len`] probabilities, if they are to be saved.
pub fn forward(isa: Isa, inputs: AttentionInputs, mut saved: Option<&mut MatrixBuf>) -> Matrix {
    let (kernel, mut keys) = (AttentionKernel::new(isa, inputs), PackedAttentionHead::new(&inputs));
    let head_width = kernel.head_width;
    let mut out = MatrixBuf::new(inputs.query.rows(), inputs.query.width());
    let mut scratch = MatrixBuf::new(inputs.max_key_len(), padded_len(inputs.max_key_len()));
    for task in inputs.head_tasks() {
        let (rows, row_stride) = (task.query_rows.len(), padded_len(task.key_rows.len()));
        let score_buffer = match (&mut saved, task.saved_offset) {
            (Some(saved), Some(saved_offset)) => &mut saved.as_mut_padded_slice()[saved_offset..],
            _ => scratch.as_mut_padded_slice(),
        };
        let score_buffer = &mut score_buffer[..rows * row_stride];
        keys.pack(inputs.key, &task, head_width);
        for block in inputs.query_blocks(&task) {
            let probabilities = &mut score_buffer[block.score_range(row_stride)];
            kernel.probabilities(&keys, &task, &block, probabilities);
            let key_rows = block.key_rows(&task.key_rows);
            let values = HeadView { rows: key_rows, matrix: inputs.value, column: task.kv_column, head_width };
            let destination =
                HeadOutput { rows: block.query_rows(&task.query_rows), column: task.query_column, accumulate: false };
            kernel.weighted_sum(Lhs::row_major(probabilities, row_stride), values, destination, &mut out);
        }
    }
    out.freeze()
}

/// Backward pass: dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P·(dP − Σ dP·P), dQ = dS·K·s, dK = dSᵀ·Q·s. Returns the gradients of
/// query, key and value, from the gradient `(tokens, hidden)` and the saved probabilities.
pub fn backward(isa: Isa, inputs: AttentionInputs, gradient: &Matrix, saved_probabilities: &Matrix) -> [Matrix; 3] {
    let kernel = AttentionKernel::new(isa, inputs);
    let [mut keys, mut values] = std::array::from_fn(|_| PackedAttentionHead::new(&inputs));
    let (head_width, scale) = (kernel.head_width, inputs.scale());
    let zeros = |shape_of: &Matrix| MatrixBuf::zeros(shape_of.rows(), shape_of.width());
    let mut grad_query = MatrixBuf::new(inputs.query.rows(), inputs.query.width());
    let (mut grad_key, mut grad_value) = (zeros(inputs.key), zeros(inputs.value));
    let max_key_len = inputs.max_key_len();
    let [mut scratch, mut grad_scores_buf] =
        std::array::from_fn(|_| MatrixBuf::new(max_key_len, padded_len(max_key_len)));
    for task in inputs.head_tasks() {
        let (rows, row_stride) = (task.query_rows.len(), padded_len(task.key_rows.len()));
        values.pack(inputs.value, &task, head_width);
        if task.saved_offset.is_none() {
            keys.pack(inputs.key, &task, head_width);
        }
        for block in inputs.query_blocks(&task) {
            let (score_range, length) = (block.score_range(row_stride), block.keys.len());
            let probabilities = match task.saved_offset {
                Some(saved_offset) => &saved_probabilities.as_padded_slice()
                    [saved_offset..saved_offset + rows * row_stride][score_range.clone()],
                None => {
                    let recomputed = &mut scratch.as_mut_padded_slice()[score_range.clone()];
                    kernel.probabilities(&keys, &task, &block, recomputed);
                    recomputed
                }
            };
            let grad_scores = &mut grad_scores_buf.as_mut_padded_slice()[score_range];
            kernel.scores(gradient, &values, &task, &block, grad_scores);
            let (query_rows, key_rows) = (|| block.query_rows(&task.query_rows), || block.key_rows(&task.key_rows));
            let query_head_view =
                |matrix| HeadView { rows: query_rows(), matrix, column: task.query_column, head_width };
            let add_to_key_rows = || HeadOutput { rows: key_rows(), column: task.kv_column, accumulate: true };
            kernel.weighted_sum(
                Lhs::row_major_transposed(probabilities, row_stride),
                query_head_view(gradient),
                add_to_key_rows(),
                &mut grad_value,
            );
            isa.run(SoftmaxBackward { gradients: grad_scores, probabilities, row_stride, length, scale });
            let key_head_view = HeadView { rows: key_rows(), matrix: inputs.key, column: task.kv_column, head_width };
            let query_destination = HeadOutput { rows: query_rows(), column: task.query_column, accumulate: false };
            kernel.weighted_sum(
                Lhs::row_major(grad_scores, row_stride),
                key_head_view,
                query_destination,
                &mut grad_query,
            );
            kernel.weighted_sum(
                Lhs::row_major_transposed(grad_scores, row_stride),
                query_head_view(inputs.query),
                add_to_key_rows(),
                &mut grad_key,
            );
        }
    }
    [grad_query.freeze(), grad_key.freeze(), grad_value.freeze()]
}
