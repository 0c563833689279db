//! GEMM with int8 activations: each block's 32 products are summed exactly as integers, and blocks in `f32`.
//!
//! So each element is one chain of blocks, and has the same bits for every split of rows and columns.

#[cfg(test)]
mod tests;

use super::activations::{LhsBlock, QuantizedActivations};
use super::codec::IntegerDot;
use super::column_slice::ColumnSlice;
use super::weight::QuantizedWeight;
use super::{CACHE_LINE_BYTES, PREFETCH_DISTANCE};
use crate::backend::cpu::gemm::AccumulatorInit;
use crate::backend::cpu::micro_tile::dispatch_tile_rows;
use crate::backend::cpu::simd::{LANES, Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, STRIP_COLUMNS};
use std::marker::PhantomData;

/// Rows of a tile. With AVX-512 the sums of a tile fit into the registers: with more rows they would be stored after each block. AVX2
/// stores them anyway, and reads a block's weights once for all rows.
const MAX_TILE_ROWS: usize = 6;

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
        assert!(
            rows <= self.activations.rows() && blocks == self.activations.blocks_per_row(),
            "the left-hand side holds every row"
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
        while strip < end {
            let mut row = 0;
            while row < rows {
                // Tiles of nearly equal size.
                let tile_rows = (rows - row).div_ceil((rows - row).div_ceil(MAX_TILE_ROWS));
                // SAFETY: the strip starts within this slice's columns, the tile's rows exist, and the operands were checked
                // above; `run_int8_dot` runs this on CPUs that support `L`.
                unsafe {
                    dispatch_tile_rows!(
                        tile_rows, MAX_TILE_ROWS, (self.run_tile)[L](strip, row),
                        1 => Int8Rows1<L>, 2 => Int8Rows2<L>, 3 => Int8Rows3<L>,
                        4 => Int8Rows4<L>, 5 => Int8Rows5<L>, 6 => Int8Rows6<L>,
                    );
                }
                row += tile_rows;
            }
            strip += 1;
        }
    }
}

impl<F: IntegerDot> Int8Gemm<'_, '_, F> {
    /// # Safety
    /// The strip starts within the output's columns, rows `row..row + T::ROWS` exist, and the CPU supports the
    /// instructions of `L`.
    #[inline(always)]
    unsafe fn run_tile<L: Simd, T: Int8Tile<L>>(&mut self, strip: usize, row: usize) {
        let (column, blocks) = (strip * STRIP_COLUMNS, self.activations.blocks_per_row());
        let columns = self.output.columns().end - column;
        let (out, out_stride) = (self.output.ptr_at(row, column), self.output.row_stride());
        // Tiles below the first one find the strip in the caches.
        let prefetches = row == 0 && self.output.rows() > MAX_STREAMING_ROWS;
        let (mut codes, mut lhs_blocks) = (self.activations.codes_ptr(row), self.activations.blocks_ptr(row));
        // SAFETY: `run` has checked that the bias has every column, the activations every row and the weight every
        // strip; partial accesses stop at the last column. The CPU supports `L`.
        unsafe {
            let mut tile = match self.init {
                AccumulatorInit::Zero => T::splat_row((L::splat(0.0), L::splat(0.0))),
                AccumulatorInit::Output => T::load_partial(out, out_stride, columns),
                AccumulatorInit::Bias(bias) => T::splat_row(load_strip(bias.as_ptr().add(column), columns)),
            };
            let mut block = self.weights.as_bytes().as_ptr().add(strip * self.weights.strip_bytes());
            let mut index = 0;
            while index < blocks {
                let weight_scales = (
                    F::scale_and_minimum(F::load_scales::<L>(block, 0)),
                    F::scale_and_minimum(F::load_scales::<L>(block, 1)),
                );
                tile = tile.start_block::<F>(lhs_blocks, blocks);
                if prefetches {
                    let next = block.wrapping_add(PREFETCH_DISTANCE);
                    let (mut line, lines) = (0, F::FORMAT.strip_block_bytes() / CACHE_LINE_BYTES);
                    while line < lines {
                        L::prefetch_l1(next.wrapping_add(line.wrapping_mul(CACHE_LINE_BYTES)));
                        line = line.wrapping_add(1);
                    }
                }
                let mut group = 0;
                while group < BLOCK_SIZE / F::VALUES_PER_LOAD {
                    let packed = (F::load_packed::<L>(block, 0, group), F::load_packed::<L>(block, 1, group));
                    tile = tile.dot_acc::<F>(codes, blocks.wrapping_mul(BLOCK_SIZE), packed);
                    codes = codes.wrapping_add(F::VALUES_PER_LOAD);
                    group = group.wrapping_add(1);
                }
                tile = tile.finish_block::<F>(lhs_blocks, blocks, weight_scales);
                lhs_blocks = lhs_blocks.wrapping_add(1);
                block = block.wrapping_add(F::FORMAT.strip_block_bytes());
                index = index.wrapping_add(1);
            }
            tile.store_partial(out, out_stride, columns);
        }
    }
}

/// Accumulators of some rows and the two panels of a strip. A nested type, as in
/// [`micro_tile`](crate::backend::cpu::micro_tile).
///
/// # Safety
/// As for [`IntegerDot`]; strides are distances between rows.
trait Int8Tile<L: Simd>: Copy {
    const ROWS: usize;

    unsafe fn splat_row(sums: (L, L)) -> Self;
    unsafe fn load_partial(src: *const f32, stride: usize, count: usize) -> Self;
    /// Sets the integer sums to the initial ones of a block.
    unsafe fn start_block<F: IntegerDot>(self, lhs_blocks: *const LhsBlock, stride: usize) -> Self;
    /// Adds to the integer sums of the current block.
    unsafe fn dot_acc<F: IntegerDot>(self, lhs: *const i8, stride: usize, packed: (F::Packed<L>, F::Packed<L>))
    -> Self;
    /// Adds the scaled integer sums of the block to the total.
    unsafe fn finish_block<F: IntegerDot>(
        self,
        lhs_blocks: *const LhsBlock,
        stride: usize,
        weight_scales: ((L, L), (L, L)),
    ) -> Self;
    unsafe fn store_partial(self, dst: *mut f32, stride: usize, count: usize);
}

#[derive(Clone, Copy)]
struct Int8RowTile<L: Simd> {
    sums: (L, L),
    block_sums: (L::U32x16, L::U32x16),
}

impl<L: Simd> Int8Tile<L> for Int8RowTile<L> {
    const ROWS: usize = 1;

    #[inline(always)]
    unsafe fn splat_row(sums: (L, L)) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        Self { sums, block_sums: unsafe { (L::splat_i32(0), L::splat_i32(0)) } }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, _: usize, count: usize) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self::splat_row(load_strip(src, count)) }
    }

    #[inline(always)]
    unsafe fn start_block<F: IntegerDot>(self, lhs_blocks: *const LhsBlock, _: usize) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        let init = unsafe {
            match F::HAS_MINIMUM {
                true => L::splat_i32(0),
                false => L::splat_i32((*lhs_blocks).negated_code_sum << F::ZERO_POINT_BITS),
            }
        };
        Self { block_sums: (init, init), ..self }
    }

    #[inline(always)]
    unsafe fn dot_acc<F: IntegerDot>(self, lhs: *const i8, _: usize, packed: (F::Packed<L>, F::Packed<L>)) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        let block_sums = unsafe {
            (F::dot_packed::<L>(self.block_sums.0, packed.0, lhs), F::dot_packed::<L>(self.block_sums.1, packed.1, lhs))
        };
        Self { block_sums, ..self }
    }

    #[inline(always)]
    unsafe fn finish_block<F: IntegerDot>(
        self,
        lhs_blocks: *const LhsBlock,
        _: usize,
        weight_scales: ((L, L), (L, L)),
    ) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            let LhsBlock { scale, negated_code_sum } = *lhs_blocks;
            let splat_scale = L::splat(scale);
            let first = L::i32_to_f32(self.block_sums.0).mul_add(weight_scales.0.0.mul(splat_scale), self.sums.0);
            let second = L::i32_to_f32(self.block_sums.1).mul_add(weight_scales.1.0.mul(splat_scale), self.sums.1);
            let sums = match F::HAS_MINIMUM {
                false => (first, second),
                true => {
                    let lhs_sum = L::splat(scale * -(negated_code_sum as f32));
                    (weight_scales.0.1.mul_add(lhs_sum, first), weight_scales.1.1.mul_add(lhs_sum, second))
                }
            };
            Self { sums, ..self }
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, _: usize, count: usize) {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            self.sums.0.store_partial(dst, count);
            self.sums.1.store_partial(dst.wrapping_add(LANES), count.saturating_sub(LANES));
        }
    }
}

/// Loads `count` values of a strip's row; the rest is 0.
///
/// # Safety
/// `src` is readable for `count` values, and the CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn load_strip<L: Simd>(src: *const f32, count: usize) -> (L, L) {
    // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they are
    // passed to; the CPU supports `L`.
    unsafe { (L::load_partial(src, count), L::load_partial(src.wrapping_add(LANES), count.saturating_sub(LANES))) }
}

/// Two tiles, one above the other.
#[derive(Clone, Copy)]
struct Int8StackedTile<A, B>(A, B);

type Int8Rows1<L> = Int8RowTile<L>;
type Int8Rows2<L> = Int8StackedTile<Int8Rows1<L>, Int8Rows1<L>>;
type Int8Rows3<L> = Int8StackedTile<Int8Rows2<L>, Int8Rows1<L>>;
type Int8Rows4<L> = Int8StackedTile<Int8Rows2<L>, Int8Rows2<L>>;
type Int8Rows5<L> = Int8StackedTile<Int8Rows4<L>, Int8Rows1<L>>;
type Int8Rows6<L> = Int8StackedTile<Int8Rows4<L>, Int8Rows2<L>>;

impl<L: Simd, A: Int8Tile<L>, B: Int8Tile<L>> Int8Tile<L> for Int8StackedTile<A, B> {
    const ROWS: usize = A::ROWS + B::ROWS;

    #[inline(always)]
    unsafe fn splat_row(sums: (L, L)) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(A::splat_row(sums), B::splat_row(sums)) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, stride: usize, count: usize) -> Self {
        let below = src.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(A::load_partial(src, stride, count), B::load_partial(below, stride, count)) }
    }

    #[inline(always)]
    unsafe fn dot_acc<F: IntegerDot>(
        self,
        lhs: *const i8,
        stride: usize,
        packed: (F::Packed<L>, F::Packed<L>),
    ) -> Self {
        let below = lhs.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(self.0.dot_acc::<F>(lhs, stride, packed), self.1.dot_acc::<F>(below, stride, packed)) }
    }

    #[inline(always)]
    unsafe fn start_block<F: IntegerDot>(self, lhs_blocks: *const LhsBlock, stride: usize) -> Self {
        let below = lhs_blocks.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(self.0.start_block::<F>(lhs_blocks, stride), self.1.start_block::<F>(below, stride)) }
    }

    #[inline(always)]
    unsafe fn finish_block<F: IntegerDot>(
        self,
        lhs_blocks: *const LhsBlock,
        stride: usize,
        weight_scales: ((L, L), (L, L)),
    ) -> Self {
        let below = lhs_blocks.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            Self(
                self.0.finish_block::<F>(lhs_blocks, stride, weight_scales),
                self.1.finish_block::<F>(below, stride, weight_scales),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, stride: usize, count: usize) {
        let below = dst.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            self.0.store_partial(dst, stride, count);
            self.1.store_partial(below, stride, count);
        }
    }
}
