//! Products with many rows: weights are widened piece by piece into the first-level cache, where all rows meet them.
//!
//! The products themselves are [`Product`]'s, whose chains go on from one piece of the depth to the next.

use super::codec::QuantCodec;
use super::column_slice::ColumnSlice;
use super::dequantize::{BlockLayout, DEQUANTIZED_BLOCK_LEN, DequantizeBlocks};
use super::format::{BLOCK_SIZE, STRIP_COLUMNS};
use super::quantized_weight::QuantizedWeight;
use crate::cpu::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use crate::cpu::matrix::MatrixBuf;
use crate::cpu::simd::Isa;
use std::marker::PhantomData;

/// Blocks that are widened at once: 24 KiB, which leave the first-level cache room for the rows.
pub const BLOCKS_PER_PASS: usize = 6;
/// Of the rows that are worked on at once, in numbers: they stay in the second-level cache while the weights go by.
const LHS_CACHE_VALUES: usize = 128 << 10;

/// Rows that are worked on at once, of so many numbers: whole tiles, and enough to be worth the widening.
pub fn row_block_size(width: usize) -> usize {
    (LHS_CACHE_VALUES / width.max(1)).clamp(48, 240).next_multiple_of(12)
}

/// `out[row, column] = start + Σ left[row, k] · weight[column, k]`
pub fn multiply<F: QuantCodec>(
    isa: Isa,
    weights: &QuantizedWeight,
    lhs: &[f32],
    init: AccumulatorInit,
    output: &mut ColumnSlice,
) {
    let (row_count, columns, input) = (output.rows(), output.columns(), weights.in_features());
    assert!(columns.start.is_multiple_of(STRIP_COLUMNS), "products are cut between strips");
    let max_rows = row_block_size(input).min(row_count);
    let (mut dequantized, mut sums) =
        (MatrixBuf::new(BLOCKS_PER_PASS, DEQUANTIZED_BLOCK_LEN), MatrixBuf::new(max_rows, STRIP_COLUMNS));
    for row in (0..row_count).step_by(max_rows.max(1)) {
        let rows = max_rows.min(row_count - row);
        for column in columns.clone().step_by(STRIP_COLUMNS) {
            let column_count = STRIP_COLUMNS.min(columns.end - column);
            let mut bias = [0.0; STRIP_COLUMNS];
            let mut init = match init {
                AccumulatorInit::Zero => AccumulatorInit::Zero,
                AccumulatorInit::Bias(bias_values) => {
                    bias[..column_count].copy_from_slice(&bias_values[column..column + column_count]);
                    AccumulatorInit::Bias(&bias)
                }
                AccumulatorInit::Output => {
                    load_columns(output, row, column, &mut sums.as_mut_slice()[..rows * STRIP_COLUMNS]);
                    AccumulatorInit::Output
                }
            };
            for first_k in (0..input).step_by(BLOCKS_PER_PASS * BLOCK_SIZE) {
                let k = (BLOCKS_PER_PASS * BLOCK_SIZE).min(input - first_k);
                let weight_offset = column / STRIP_COLUMNS * weights.strip_bytes()
                    + first_k / BLOCK_SIZE * F::FORMAT.strip_block_bytes();
                let dequantized_blocks =
                    &mut dequantized.as_mut_slice()[..k.div_ceil(BLOCK_SIZE) * DEQUANTIZED_BLOCK_LEN];
                let (block_stride, prefetch_distance) =
                    (F::FORMAT.strip_block_bytes(), BLOCKS_PER_PASS * F::FORMAT.strip_block_bytes());
                let layout = BlockLayout::InputByOutput;
                isa.run(DequantizeBlocks::<F> {
                    weights,
                    first_offset: weight_offset,
                    block_stride,
                    prefetch_distance,
                    layout,
                    out: dequantized_blocks,
                    codec: PhantomData,
                });
                let lhs = Lhs::row_major(&lhs[row * input + first_k..], input);
                let rhs = Rhs { values: dequantized_blocks, panel_stride: STRIP_COLUMNS / 2, k_stride: STRIP_COLUMNS };
                let out = &mut sums.as_mut_slice()[..rows * STRIP_COLUMNS];
                isa.run(Gemm { m: rows, k, n: STRIP_COLUMNS, lhs, rhs, init, out, out_stride: STRIP_COLUMNS });
                init = AccumulatorInit::Output;
            }
            store_columns(&sums.as_mut_slice()[..rows * STRIP_COLUMNS], output, row, column);
        }
    }
}

/// Columns of ours, from rows of 32.
fn store_columns(sums: &[f32], output: &mut ColumnSlice, row: usize, column: usize) {
    let column_count = STRIP_COLUMNS.min(output.columns().end - column);
    for (index, sums) in sums.chunks_exact(STRIP_COLUMNS).enumerate() {
        let out = output.ptr_at(row + index, column);
        // SAFETY: so many columns are ours from there on, and nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), out, column_count) };
    }
}

/// Columns of ours, into rows of 32.
fn load_columns(output: &mut ColumnSlice, row: usize, column: usize, sums: &mut [f32]) {
    let column_count = STRIP_COLUMNS.min(output.columns().end - column);
    for (index, sums) in sums.chunks_exact_mut(STRIP_COLUMNS).enumerate() {
        let out = output.ptr_at(row + index, column);
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(out, sums.as_mut_ptr(), column_count) };
    }
}
