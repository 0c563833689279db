//! GEMM with int8 activations: the products of weights that share a scale, 16, 32 or 64 of a row, are summed exactly as integers, and
//! these sums in `f32`.
//!
//! So each element is one chain of sums, and has the same bits for every split of rows and columns.

#[cfg(test)]
mod tests;

use super::CACHE_LINE_BYTES;
use super::activations::QuantizedActivations;
use super::codec::BlockPtr;
use super::column_slice::ColumnSlice;
use super::int8_tile::{Int8Rows1, Int8Rows2, Int8Rows3, Int8Rows4, Int8Rows5, Int8Rows6, Int8Tile, load_strip};
use super::integer_dot::IntegerDot;
use super::weight::QuantizedWeight;
use crate::backend::cpu::gemm::AccumulatorInit;
use crate::backend::cpu::micro_tile::dispatch_tile_rows;
use crate::backend::cpu::simd::{Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, STRIP_COLUMNS};
use std::marker::PhantomData;

/// Up to this many rows, memory is the limit: the processor's own prefetching of the sequential weights reaches the bandwidth, and prefetch
/// instructions take a third of it away, because they and the loads share the buffers for misses.
const MAX_STREAMING_ROWS: usize = 2;

/// `out[row, column] = init + Σ activations[row, k] · weight[column, k]`
pub struct Int8Gemm<'a, 'b, F> {
    pub weights: &'a QuantizedWeight,
    pub activations: &'a QuantizedActivations,
    pub init: AccumulatorInit<'a>,
    pub output: &'a mut ColumnSlice<'b>,
    pub codec: PhantomData<F>,
}

impl<F: IntegerDot> SimdKernel for Int8Gemm<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(mut self) {
        let (rows, columns) = (self.output.rows(), self.output.columns());
        let blocks = self.weights.in_features().div_ceil(BLOCK_SIZE);
        let steps = blocks.div_ceil(blocks_per_step::<F>());
        assert!(
            rows <= self.activations.rows()
                && self.activations.codes_per_row() == (blocks * BLOCK_SIZE).next_multiple_of(step_values::<F>())
                && self.activations.blocks_per_row() * F::FORMAT.values_per_scale() == self.activations.codes_per_row(),
            "the left-hand side holds every row, quantized for the format"
        );
        assert!(
            self.weights.format() == F::FORMAT && columns.end <= self.weights.out_features(),
            "the weight has the format and the columns"
        );
        assert!(columns.start.is_multiple_of(STRIP_COLUMNS), "the columns start at a strip");
        if let AccumulatorInit::Bias(bias) = self.init {
            assert!(columns.end <= bias.len(), "the bias holds every column");
        }
        let (mut strip, end) = (columns.start / STRIP_COLUMNS, columns.end.div_ceil(STRIP_COLUMNS));
        let max_rows = L::INT8_TILE_ROWS;
        let prefetched_lines = match rows > MAX_STREAMING_ROWS {
            true => self.weights.strip_bytes().div_ceil(CACHE_LINE_BYTES * steps * rows.div_ceil(max_rows)),
            false => 0,
        };
        while strip < end {
            let mut row = 0;
            // Each tile prefetches its share of the next strip, so that the loads from memory are spread over the arithmetic.
            let mut prefetch_ptr =
                self.weights.as_bytes().as_ptr().wrapping_add((strip + 1) * self.weights.strip_bytes());
            while row < rows {
                // Tiles of nearly equal size.
                let tile_rows = (rows - row).div_ceil((rows - row).div_ceil(max_rows));
                // SAFETY: the strip starts within this slice's columns, the tile's rows exist, and the operands were checked
                // above; `run_int8_dot` runs this on CPUs that support `L`.
                unsafe {
                    dispatch_tile_rows!(
                        tile_rows, max_rows, (self.run_tile)[L](strip, row, prefetch_ptr, prefetched_lines),
                        1 => Int8Rows1<L>, 2 => Int8Rows2<L>, 3 => Int8Rows3<L>,
                        4 => Int8Rows4<L>, 5 => Int8Rows5<L>, 6 => Int8Rows6<L>,
                    );
                }
                prefetch_ptr = prefetch_ptr.wrapping_add(steps * prefetched_lines * CACHE_LINE_BYTES);
                row += tile_rows;
            }
            strip += 1;
        }
    }
}

/// Weights of a row that a step of the inner loop multiplies: a block, or all that share a scale.
const fn step_values<F: IntegerDot>() -> usize {
    let values_per_scale = F::FORMAT.values_per_scale();
    if values_per_scale > BLOCK_SIZE { values_per_scale } else { BLOCK_SIZE }
}

const fn blocks_per_step<F: IntegerDot>() -> usize {
    step_values::<F>() / BLOCK_SIZE
}

/// Spans of weights that share a scale.
const fn spans_per_step<F: IntegerDot>() -> usize {
    step_values::<F>() / F::FORMAT.values_per_scale()
}

impl<F: IntegerDot> Int8Gemm<'_, '_, F> {
    /// Computes a tile. With each step it prefetches `prefetched_lines` cache lines, from `prefetch_ptr` on.
    ///
    /// # Safety
    /// The strip starts within the output's columns, rows `row..row + T::ROWS` exist, and the CPU supports the
    /// instructions of `L`.
    #[inline(always)]
    unsafe fn run_tile<L: Simd, T: Int8Tile<L>>(
        &mut self,
        strip: usize,
        row: usize,
        mut prefetch_ptr: *const u8,
        prefetched_lines: usize,
    ) {
        let (column, blocks) = (strip * STRIP_COLUMNS, self.weights.in_features().div_ceil(BLOCK_SIZE));
        let (lhs_stride, code_stride) = (self.activations.blocks_per_row(), self.activations.codes_per_row());
        let columns = self.output.columns().end - column;
        let (out, out_stride) = (self.output.ptr_at(row, column), self.output.row_stride());
        let (mut codes, mut lhs_blocks) = (self.activations.codes_ptr(row), self.activations.blocks_ptr(row));
        // SAFETY: `run` has checked that the bias has every column, the activations every row and the weight every
        // strip; partial accesses stop at the last column. The CPU supports `L`.
        unsafe {
            let mut tile = match self.init {
                AccumulatorInit::Zero => T::splat_row((L::splat(0.0), L::splat(0.0))),
                AccumulatorInit::Output => T::load_partial(out, out_stride, columns),
                AccumulatorInit::Bias(bias) => T::splat_row(load_strip(bias.as_ptr().add(column), columns)),
            };
            let strip_ptr = self.weights.as_bytes().as_ptr().add(strip * self.weights.strip_bytes());
            let mut index = 0;
            while index < blocks {
                let block = BlockPtr::new(F::FORMAT, strip_ptr, index);
                let mut line = 0;
                while line < prefetched_lines {
                    L::prefetch_l2(prefetch_ptr.cast());
                    prefetch_ptr = prefetch_ptr.wrapping_add(CACHE_LINE_BYTES);
                    line = line.wrapping_add(1);
                }
                let (mut span, mut group) = (0, 0);
                while span < spans_per_step::<F>() {
                    let weight_scales = (
                        F::span_scale_and_minimum::<L>(block, 0, span),
                        F::span_scale_and_minimum::<L>(block, 1, span),
                    );
                    tile = tile.start_span::<F>(lhs_blocks, lhs_stride);
                    let mut load = 0;
                    while load < F::FORMAT.values_per_scale() / F::VALUES_PER_LOAD {
                        let packed = (F::load_packed::<L>(block, 0, group), F::load_packed::<L>(block, 1, group));
                        tile = tile.dot_acc::<F>(codes, code_stride, packed);
                        codes = codes.wrapping_add(F::VALUES_PER_LOAD);
                        group = group.wrapping_add(1);
                        load = load.wrapping_add(1);
                    }
                    tile = tile.finish_span::<F>(lhs_blocks, lhs_stride, weight_scales);
                    lhs_blocks = lhs_blocks.wrapping_add(1);
                    span = span.wrapping_add(1);
                }
                index = index.wrapping_add(blocks_per_step::<F>());
            }
            tile.store_partial(out, out_stride, columns);
        }
    }
}
