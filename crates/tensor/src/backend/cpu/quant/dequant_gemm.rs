//! GEMM with a quantized weight for many rows: blocks are dequantized to a first-level cache, then multiplied as `f32`.

use super::codec::QuantCodec;
use super::column_slice::ColumnSlice;
use super::gemv::{SingleStrip, WeightLoad};
use super::weight::QuantizedWeight;
use crate::backend::cpu::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use crate::backend::cpu::matrix::MatrixBuf;
use crate::backend::cpu::micro_tile::PanelVec;
use crate::backend::cpu::simd::{Isa, LANES, Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, STRIP_COLUMNS};
use std::marker::PhantomData;

/// Blocks that are widened at once: 24 KiB, which leave the first-level cache room for the rows.
const BLOCKS_PER_PASS: usize = 6;
/// Of the rows that are worked on at once, in numbers: they stay in the second-level cache while the weights go by.
const LHS_CACHE_VALUES: usize = 128 << 10;

/// Rows that are worked on at once, of so many numbers: whole tiles, and enough to be worth the widening.
fn row_block_size(width: usize) -> usize {
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

/// `out[row, k] = start + Σ gradient[row, column] · weight[column, k]`, with `gradient` `(rows, output)` and `out`
/// `(rows, input)`.
pub fn backward<F: QuantCodec>(
    isa: Isa,
    weights: &QuantizedWeight,
    gradient: &[f32],
    init: AccumulatorInit,
    out: &mut [f32],
) {
    let (out_features, in_features) = (weights.out_features(), weights.in_features());
    assert!(!matches!(init, AccumulatorInit::Bias(_)), "a gradient has no bias");
    let row_count = out.len() / in_features.max(1);
    assert!(row_count * out_features <= gradient.len(), "the gradient has every row");
    // The sums stay in the second-level cache, beside as many of the gradients as meet a few blocks.
    let max_rows = row_block_size(in_features + BLOCKS_PER_PASS * STRIP_COLUMNS).min(row_count);
    let mut dequantized = MatrixBuf::new(BLOCKS_PER_PASS, DEQUANTIZED_BLOCK_LEN);
    for row in (0..row_count).step_by(max_rows.max(1)) {
        let rows = max_rows.min(row_count - row);
        let out = &mut out[row * in_features..(row + rows) * in_features];
        for first_output in (0..out_features).step_by(BLOCKS_PER_PASS * STRIP_COLUMNS) {
            let k = (BLOCKS_PER_PASS * STRIP_COLUMNS).min(out_features - first_output);
            let init = if first_output > 0 { AccumulatorInit::Output } else { init };
            for column in (0..in_features).step_by(BLOCK_SIZE) {
                let weight_offset = first_output / STRIP_COLUMNS * weights.strip_bytes()
                    + column / BLOCK_SIZE * F::FORMAT.strip_block_bytes();
                let dequantized_blocks =
                    &mut dequantized.as_mut_slice()[..k.div_ceil(STRIP_COLUMNS) * DEQUANTIZED_BLOCK_LEN];
                let (block_stride, prefetch_distance) = (weights.strip_bytes(), F::FORMAT.strip_block_bytes());
                let layout = BlockLayout::OutputByInput;
                isa.run(DequantizeBlocks::<F> {
                    weights,
                    first_offset: weight_offset,
                    block_stride,
                    prefetch_distance,
                    layout,
                    out: dequantized_blocks,
                    codec: PhantomData,
                });
                let lhs = Lhs::row_major(&gradient[row * out_features + first_output..], out_features);
                let rhs = Rhs { values: dequantized_blocks, panel_stride: BLOCK_SIZE / 2, k_stride: BLOCK_SIZE };
                let columns = BLOCK_SIZE.min(in_features - column);
                let out = &mut out[column..];
                isa.run(Gemm { m: rows, k, n: columns, lhs, rhs, init, out, out_stride: in_features });
            }
        }
    }
}

/// Numbers of a strip's block when it is widened.
const DEQUANTIZED_BLOCK_LEN: usize = BLOCK_SIZE * STRIP_COLUMNS;

/// Which way a block's numbers lie in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockLayout {
    /// `(depth, 32 columns)`, as `x·Wᵀ` reads them.
    InputByOutput,
    /// `(32 columns, depth)`, as `dY·W` does.
    OutputByInput,
}

/// Some neighbouring blocks, the first from `block` on, each [`WIDE`] numbers further in the buffer.
struct DequantizeBlocks<'a, F> {
    weights: &'a QuantizedWeight,
    /// The first block's place in the weights, and how far it is from one to the next, in bytes.
    first_offset: usize,
    block_stride: usize,
    /// How far it is from a block to the one that will be widened at its place the next time, in bytes.
    prefetch_distance: usize,
    layout: BlockLayout,
    out: &'a mut [f32],
    codec: PhantomData<F>,
}

impl<F: QuantCodec> SimdKernel for DequantizeBlocks<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        let blocks = self.out.len() / DEQUANTIZED_BLOCK_LEN;
        let bytes = self.weights.as_bytes();
        let end = self.first_offset + (blocks.max(1) - 1) * self.block_stride + F::FORMAT.strip_block_bytes();
        assert!(self.weights.format() == F::FORMAT && end <= bytes.len(), "a weight has these blocks");
        let mut scratch = [0.0; DEQUANTIZED_BLOCK_LEN];
        let mut index = 0;
        while index < blocks {
            // SAFETY: the block lies within the weights and its numbers within the buffer, as was just shown; the caller is
            // inside `Level::run`.
            unsafe {
                let block = bytes.as_ptr().add(self.first_offset + index * self.block_stride);
                let out = self.out.as_mut_ptr().add(index * DEQUANTIZED_BLOCK_LEN);
                match self.layout {
                    BlockLayout::InputByOutput => dequantize_block::<L, F>(block, self.prefetch_distance, out),
                    BlockLayout::OutputByInput => {
                        dequantize_block::<L, F>(block, self.prefetch_distance, scratch.as_mut_ptr());
                        transpose_block::<L>(scratch.as_ptr(), out);
                    }
                }
            }
            index += 1;
        }
    }
}

/// # Safety
/// As [`Coded`]; `out` is good for [`WIDE`] numbers.
#[inline(always)]
unsafe fn dequantize_block<L: Simd, F: QuantCodec>(block: *const u8, prefetch_distance: usize, out: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        let scales = <SingleStrip as WeightLoad<L, F>>::load_scales(block, 0);
        let group_bytes = F::FORMAT.strip_block_bytes() / (BLOCK_SIZE / F::VALUES_PER_LOAD);
        let (mut group, mut out) = (0, out);
        while group < BLOCK_SIZE / F::VALUES_PER_LOAD {
            let packed = <SingleStrip as WeightLoad<L, F>>::load_packed(block, 0, group);
            // What is asked for now comes while this is multiplied.
            let line = block.wrapping_add(prefetch_distance).wrapping_add(group.wrapping_mul(group_bytes));
            L::prefetch_l2(line.cast());
            if group_bytes > 64 {
                L::prefetch_l2(line.wrapping_add(64).cast());
            }
            if group_bytes >= 192 {
                L::prefetch_l2(line.wrapping_add(128).cast());
            }
            macro_rules! store_values {
                ($($step:literal)+) => {
                    $(if $step < F::VALUES_PER_LOAD {
                        let values = <SingleStrip as WeightLoad<L, F>>::dequantize::<$step>(packed, scales);
                        values.store_partial(out.wrapping_add($step * STRIP_COLUMNS), STRIP_COLUMNS);
                    })+
                };
            }
            store_values!(0 1 2 3 4 5 6 7);
            out = out.wrapping_add(F::VALUES_PER_LOAD * STRIP_COLUMNS);
            group = group.wrapping_add(1);
        }
    }
}

/// Rows of a square block become columns.
///
/// # Safety
/// Both are good for [`WIDE`] numbers.
#[inline(always)]
unsafe fn transpose_block<L: Simd>(src: *const f32, dst: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        L::transpose_16x16(src, STRIP_COLUMNS, dst, STRIP_COLUMNS);
        L::transpose_16x16(src.add(LANES), STRIP_COLUMNS, dst.add(LANES * STRIP_COLUMNS), STRIP_COLUMNS);
        L::transpose_16x16(src.add(LANES * STRIP_COLUMNS), STRIP_COLUMNS, dst.add(LANES), STRIP_COLUMNS);
        L::transpose_16x16(
            src.add(LANES * STRIP_COLUMNS + LANES),
            STRIP_COLUMNS,
            dst.add(LANES * STRIP_COLUMNS + LANES),
            STRIP_COLUMNS,
        );
    }
}

const _: () = assert!(BLOCK_SIZE == STRIP_COLUMNS, "a block is a square");
