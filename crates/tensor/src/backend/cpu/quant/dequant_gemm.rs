//! GEMM with a quantized weight for many rows: blocks are dequantized to a first-level cache, then multiplied as `f32`.

use super::codec::{BlockPtr, QuantCodec};
use super::column_slice::ColumnSlice;
use super::gemv::{SingleStrip, WeightLoad};
use super::weight::QuantizedWeight;
use crate::backend::cpu::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use crate::backend::cpu::matrix::MatrixBuf;
use crate::backend::cpu::micro_tile::PanelVec;
use crate::backend::cpu::simd::{Isa, LANES, Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, STRIP_COLUMNS};
use std::marker::PhantomData;

/// Blocks dequantized at once: 24 KiB, which leaves room for the rows in the first-level cache.
const BLOCKS_PER_PASS: usize = 6;
/// Values of the left-hand side per pass: they stay in the second-level cache while the weight streams by.
const LHS_CACHE_VALUES: usize = 128 << 10;

/// Rows per pass for rows of `width` values: whole tiles, and enough to amortise the dequantization.
fn row_block_size(width: usize) -> usize {
    (LHS_CACHE_VALUES / width.max(1)).clamp(48, 240).next_multiple_of(12)
}

/// `out[row, column] = init + Σ lhs[row, k] · weight[column, k]`
pub fn multiply<F: QuantCodec>(
    isa: Isa,
    weights: &QuantizedWeight,
    lhs: &[f32],
    init: AccumulatorInit,
    output: &mut ColumnSlice,
) {
    let (row_count, columns, input) = (output.rows(), output.columns(), weights.in_features());
    assert!(columns.start.is_multiple_of(STRIP_COLUMNS), "the columns start at a strip");
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
                let dequantized_blocks =
                    &mut dequantized.as_mut_slice()[..k.div_ceil(BLOCK_SIZE) * DEQUANTIZED_BLOCK_LEN];
                let strip = column / STRIP_COLUMNS;
                dequantize_strip_blocks::<F>(isa, weights, strip, first_k / BLOCK_SIZE, dequantized_blocks);
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

/// Copies a strip's sums to the output columns.
fn store_columns(sums: &[f32], output: &mut ColumnSlice, row: usize, column: usize) {
    let column_count = STRIP_COLUMNS.min(output.columns().end - column);
    for (index, sums) in sums.chunks_exact(STRIP_COLUMNS).enumerate() {
        let out = output.ptr_at(row + index, column);
        // SAFETY: `ptr_at` points into this slice, which owns `column_count` columns from there on; `sums` is a
        // separate buffer.
        unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), out, column_count) };
    }
}

/// Copies output columns to a strip's sums.
fn load_columns(output: &mut ColumnSlice, row: usize, column: usize, sums: &mut [f32]) {
    let column_count = STRIP_COLUMNS.min(output.columns().end - column);
    for (index, sums) in sums.chunks_exact_mut(STRIP_COLUMNS).enumerate() {
        let out = output.ptr_at(row + index, column);
        // SAFETY: `ptr_at` points into this slice, which owns `column_count` columns from there on, and `sums` has 32
        // values per row.
        unsafe { std::ptr::copy_nonoverlapping(out, sums.as_mut_ptr(), column_count) };
    }
}

/// Gradient with respect to the input, dX = dY·W: `out[row, k] = init + Σ gradient[row, column] · weight[column, k]`,
/// with `gradient` `(rows, output)` and `out` `(rows, input)`. No second copy of the weight is kept: blocks are
/// transposed as they are dequantized. Every element is one chain in the order of the outputs.
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
    // The sums stay in the second-level cache, beside the gradients of the current blocks.
    let max_rows = row_block_size(in_features + BLOCKS_PER_PASS * STRIP_COLUMNS).min(row_count);
    let mut dequantized = MatrixBuf::new(BLOCKS_PER_PASS, DEQUANTIZED_BLOCK_LEN);
    for row in (0..row_count).step_by(max_rows.max(1)) {
        let rows = max_rows.min(row_count - row);
        let out = &mut out[row * in_features..(row + rows) * in_features];
        for first_output in (0..out_features).step_by(BLOCKS_PER_PASS * STRIP_COLUMNS) {
            let k = (BLOCKS_PER_PASS * STRIP_COLUMNS).min(out_features - first_output);
            let init = if first_output > 0 { AccumulatorInit::Output } else { init };
            for column in (0..in_features).step_by(BLOCK_SIZE) {
                let dequantized_blocks =
                    &mut dequantized.as_mut_slice()[..k.div_ceil(STRIP_COLUMNS) * DEQUANTIZED_BLOCK_LEN];
                isa.run(DequantizeBlocks::<F> {
                    weights,
                    first_strip: first_output / STRIP_COLUMNS,
                    first_block: column / BLOCK_SIZE,
                    prefetch_distance: F::FORMAT.strip_block_bytes(),
                    layout: BlockLayout::OutputByInput,
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

/// Number of values in a strip's block.
const DEQUANTIZED_BLOCK_LEN: usize = BLOCK_SIZE * STRIP_COLUMNS;

/// Layout of dequantized blocks, and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockLayout {
    /// `(k, 32 columns)`, for `x·Wᵀ`. The blocks follow one another in a strip.
    InputByOutput,
    /// `(32 columns, k)`, for `dY·W`. The blocks have the same index in consecutive strips.
    OutputByInput,
}

/// Dequantizes blocks of a strip to `(k, 32 columns)`. `out` holds a whole number of blocks.
pub fn dequantize_strip_blocks<F: QuantCodec>(
    isa: Isa,
    weights: &QuantizedWeight,
    strip: usize,
    first_block: usize,
    out: &mut [f32],
) {
    let prefetch_distance = out.len() / DEQUANTIZED_BLOCK_LEN * F::FORMAT.strip_block_bytes();
    isa.run(DequantizeBlocks::<F> {
        weights,
        first_strip: strip,
        first_block,
        prefetch_distance,
        layout: BlockLayout::InputByOutput,
        out,
        codec: PhantomData,
    });
}

/// Dequantizes blocks to consecutive [`DEQUANTIZED_BLOCK_LEN`] values each.
struct DequantizeBlocks<'a, F> {
    weights: &'a QuantizedWeight,
    first_strip: usize,
    /// Index of the first block in its strip.
    first_block: usize,
    /// Distance in bytes to the block that will be dequantized next into the same place.
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
        let last = blocks.max(1) - 1;
        let (last_strip, last_block) = match self.layout {
            BlockLayout::InputByOutput => (self.first_strip, self.first_block + last),
            BlockLayout::OutputByInput => (self.first_strip + last, self.first_block),
        };
        let block_count = self.weights.in_features().div_ceil(BLOCK_SIZE);
        assert!(
            self.weights.format() == F::FORMAT && last_strip < self.weights.strip_count() && last_block < block_count,
            "the weight has the format and the blocks"
        );
        let mut scratch = [0.0; DEQUANTIZED_BLOCK_LEN];
        let mut index = 0;
        while index < blocks {
            let (strip, block) = match self.layout {
                BlockLayout::InputByOutput => (self.first_strip, self.first_block + index),
                BlockLayout::OutputByInput => (self.first_strip + index, self.first_block),
            };
            // SAFETY: the assertion above bounds the last block by the weight's blocks, and the output holds `blocks`
            // dequantized blocks; the CPU supports `L`.
            unsafe {
                let strip = bytes.as_ptr().add(strip * self.weights.strip_bytes());
                let block = BlockPtr::new(F::FORMAT, strip, block);
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
/// As for [`QuantCodec`]; `out` is writable for [`DEQUANTIZED_BLOCK_LEN`] values.
#[inline(always)]
unsafe fn dequantize_block<L: Simd, F: QuantCodec>(block: BlockPtr, prefetch_distance: usize, out: *mut f32) {
    // SAFETY: `block` points to a whole block, `out` to room for all its values; prefetched addresses need not be
    // valid. The CPU supports `L`.
    unsafe {
        let scales = <SingleStrip as WeightLoad<L, F>>::load_scales(block, 0);
        let group_bytes = F::FORMAT.strip_block_bytes() / (BLOCK_SIZE / F::VALUES_PER_LOAD);
        let (mut group, mut out) = (0, out);
        while group < BLOCK_SIZE / F::VALUES_PER_LOAD {
            let packed = <SingleStrip as WeightLoad<L, F>>::load_packed(block, 0, group);
            // The prefetched line arrives while this block is multiplied.
            let line = block.address().wrapping_add(prefetch_distance).wrapping_add(group.wrapping_mul(group_bytes));
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

/// Transposes a 32×32 block.
///
/// # Safety
/// Both pointers are valid for [`DEQUANTIZED_BLOCK_LEN`] values, and the CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn transpose_block<L: Simd>(src: *const f32, dst: *mut f32) {
    // SAFETY: each of the four 16×16 quarters lies within the block of 32 rows of 32 values on both sides; the CPU
    // supports `L`.
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

const _: () = assert!(BLOCK_SIZE == STRIP_COLUMNS, "blocks are square");
