//! Products with few rows: weights are widened in registers, on their way from memory to the multiply-adds.
//!
//! Bound by memory with one row and by arithmetic with many, for every tile of rows widens all weights anew.

use super::codec::QuantCodec;
use super::column_slice::ColumnSlice;
use super::weight::QuantizedWeight;
use crate::backend::cpu::gemm::AccumulatorInit;
use crate::backend::cpu::micro_tile::{
    MicroTile, PanelPair, PanelVec, Rows1, Rows2, Rows3, Rows4, Rows5, Rows6, Rows7, Rows8, SinglePanel,
};
use crate::backend::cpu::simd::{Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, STRIP_COLUMNS};
use std::marker::PhantomData;

/// Neighbouring strips' panels at one step of the depth.
///
/// # Safety
/// As [`Coded`]; `step` is from one strip to the next, in bytes.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait WeightLoad<L: Simd, F: QuantCodec> {
    const STRIPS: usize;
    type Dequantized: PanelVec<L>;
    type Scales: Copy;
    type Packed: Copy;

    unsafe fn load_scales(block: *const u8, stride: usize) -> Self::Scales;
    unsafe fn load_packed(block: *const u8, stride: usize, group: usize) -> Self::Packed;
    unsafe fn dequantize<const STEP: u32>(packed: Self::Packed, scales: Self::Scales) -> Self::Dequantized;
    /// Asks for the cache line there.
    unsafe fn prefetch(address: *const u8, stride: usize);
}

pub struct SingleStrip;

/// The two panels of a strip.
impl<L: Simd, F: QuantCodec> WeightLoad<L, F> for SingleStrip {
    const STRIPS: usize = 1;
    type Dequantized = PanelPair<SinglePanel<L>>;
    type Scales = (F::Scales<L>, F::Scales<L>);
    type Packed = (F::Packed<L>, F::Packed<L>);

    #[inline(always)]
    unsafe fn load_scales(block: *const u8, _: usize) -> Self::Scales {
        // SAFETY: the caller's.
        unsafe { (F::load_scales::<L>(block, 0), F::load_scales::<L>(block, 1)) }
    }

    #[inline(always)]
    unsafe fn load_packed(block: *const u8, _: usize, group: usize) -> Self::Packed {
        // SAFETY: the caller's.
        unsafe { (F::load_packed::<L>(block, 0, group), F::load_packed::<L>(block, 1, group)) }
    }

    #[inline(always)]
    unsafe fn dequantize<const STEP: u32>(packed: Self::Packed, scales: Self::Scales) -> Self::Dequantized {
        // SAFETY: the caller's.
        unsafe {
            let first = F::dequantize::<L, STEP>(packed.0, scales.0);
            PanelPair(SinglePanel(first), SinglePanel(F::dequantize::<L, STEP>(packed.1, scales.1)))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8, _: usize) {
        // SAFETY: the caller's.
        unsafe { L::prefetch_l1(address) }
    }
}

pub struct StripPair<R>(R);

impl<L: Simd, F: QuantCodec, R: WeightLoad<L, F>> WeightLoad<L, F> for StripPair<R> {
    const STRIPS: usize = 2 * R::STRIPS;
    type Dequantized = PanelPair<R::Dequantized>;
    type Scales = (R::Scales, R::Scales);
    type Packed = (R::Packed, R::Packed);

    #[inline(always)]
    unsafe fn load_scales(block: *const u8, stride: usize) -> Self::Scales {
        let next_block = block.wrapping_add(R::STRIPS.wrapping_mul(stride));
        // SAFETY: the caller's.
        unsafe { (R::load_scales(block, stride), R::load_scales(next_block, stride)) }
    }

    #[inline(always)]
    unsafe fn load_packed(block: *const u8, stride: usize, group: usize) -> Self::Packed {
        let next_block = block.wrapping_add(R::STRIPS.wrapping_mul(stride));
        // SAFETY: the caller's.
        unsafe { (R::load_packed(block, stride, group), R::load_packed(next_block, stride, group)) }
    }

    #[inline(always)]
    unsafe fn dequantize<const STEP: u32>(packed: Self::Packed, scales: Self::Scales) -> Self::Dequantized {
        // SAFETY: the caller's.
        unsafe { PanelPair(R::dequantize::<STEP>(packed.0, scales.0), R::dequantize::<STEP>(packed.1, scales.1)) }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8, stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            R::prefetch(address, stride);
            R::prefetch(address.wrapping_add(R::STRIPS.wrapping_mul(stride)), stride);
        }
    }
}

/// How far ahead of its use memory is asked for, in bytes. For weights of 16 bits the processor does it as well by itself.
const PREFETCH_DISTANCE: usize = 1024;
/// Rows of a tile at most: more would win little, and cost much to compile.
const MAX_TILE_ROWS: usize = 8;
/// Bytes that come to the cache together.
const CACHE_LINE_BYTES: usize = 64;

/// `out[row, column] = start + Σ left[row, k] · weight[column, k]`
pub struct QuantGemv<'a, 'b, F> {
    pub weights: &'a QuantizedWeight,
    /// `(rows, input)`
    pub lhs: &'a [f32],
    pub init: AccumulatorInit<'a>,
    pub output: &'a mut ColumnSlice<'b>,
    pub codec: PhantomData<F>,
}

impl<F: QuantCodec> SimdKernel for QuantGemv<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(mut self) {
        let rows = self.output.rows();
        let columns = self.output.columns();
        assert!(rows * self.weights.in_features() <= self.lhs.len(), "the left side holds every row");
        assert!(
            self.weights.format() == F::FORMAT && columns.end <= self.weights.out_features(),
            "a weight has these columns"
        );
        assert!(columns.start.is_multiple_of(STRIP_COLUMNS), "products are cut between strips");
        if let AccumulatorInit::Bias(bias) = self.init {
            assert!(columns.end <= bias.len(), "the bias holds every column");
        }
        let (mut strip, end) = (columns.start / STRIP_COLUMNS, columns.end.div_ceil(STRIP_COLUMNS));
        let max_rows = (L::TILE_ROWS * L::TILE_PANELS / 2).min(MAX_TILE_ROWS);
        while strip < end {
            // One row's chains are too few to keep the arithmetic busy, with the panels of one strip.
            let uses_strip_pair = L::TILE_PANELS > 1 && rows <= 2 && strip + 2 <= end;
            let mut row = 0;
            while row < rows {
                // tiles of nearly the same size
                let tile_rows = (rows - row).div_ceil((rows - row).div_ceil(max_rows));
                // A tile that has more registers than the machine is never asked for, nor compiled.
                macro_rules! dispatch_rows {
                    ($($rows:literal $sums:ident)+) => {
                        match tile_rows {
                            // SAFETY: the strip has columns of ours, and the rows are ours; the caller is in `Level::run`.
                            1 if uses_strip_pair => unsafe { self.run_tile::<L, StripPair<SingleStrip>, Rows1<_>>(strip, row) },
                            // SAFETY: as above.
                            2 if uses_strip_pair => unsafe { self.run_tile::<L, StripPair<SingleStrip>, Rows2<_>>(strip, row) },
                            // SAFETY: as above.
                            $($rows if $rows <= max_rows => unsafe { self.run_tile::<L, SingleStrip, $sums<_>>(strip, row) },)+
                            _ => {}
                        }
                    };
                }
                dispatch_rows!(1 Rows1 2 Rows2 3 Rows3 4 Rows4 5 Rows5 6 Rows6 7 Rows7 8 Rows8);
                row += tile_rows;
            }
            strip += if uses_strip_pair { 2 } else { 1 };
        }
    }
}

impl<F: QuantCodec> QuantGemv<'_, '_, F> {
    /// # Safety
    /// The reading's strips from `strip` on, and the tile's rows from `row` on, are in the output.
    #[inline(always)]
    unsafe fn run_tile<L: Simd, R: WeightLoad<L, F>, S: MicroTile<L, R::Dequantized>>(
        &mut self,
        strip: usize,
        row: usize,
    ) {
        let (column, k, strip_stride) = (strip * STRIP_COLUMNS, self.weights.in_features(), self.weights.strip_bytes());
        let columns = self.output.columns().end - column;
        let (out, out_stride) = (self.output.ptr_at(row, column), self.output.row_stride());
        // SAFETY: all columns have a bias, all rows a left side and all strips their blocks; the rest is the caller's.
        unsafe {
            let mut sums = match self.init {
                AccumulatorInit::Zero => S::splat_row(R::Dequantized::zero()),
                AccumulatorInit::Output => S::load_partial(out, out_stride, columns),
                AccumulatorInit::Bias(bias) => {
                    S::splat_row(R::Dequantized::load_partial(bias.as_ptr().add(column), columns))
                }
            };
            let mut lhs = self.lhs.as_ptr().add(row * k);
            let mut block = self.weights.as_bytes().as_ptr().add(strip * strip_stride);
            let mut remaining_k = k;
            while remaining_k >= BLOCK_SIZE {
                let scales = R::load_scales(block, strip_stride);
                let mut prefetch_address = block.wrapping_add(PREFETCH_DISTANCE);
                let mut scale_line = 0;
                while scale_line < F::SCALE_LINES {
                    R::prefetch(prefetch_address, strip_stride);
                    prefetch_address = prefetch_address.wrapping_add(CACHE_LINE_BYTES);
                    scale_line = scale_line.wrapping_add(1);
                }
                let mut group = 0;
                while group < BLOCK_SIZE / F::VALUES_PER_LOAD {
                    // One after the other: more at once than the cache can wait for would hold everything up.
                    if F::SCALE_LINES > 0 {
                        R::prefetch(prefetch_address, strip_stride);
                        R::prefetch(prefetch_address.wrapping_add(CACHE_LINE_BYTES), strip_stride);
                        prefetch_address = prefetch_address.wrapping_add(2 * CACHE_LINE_BYTES);
                    }
                    sums = mul_acc_packed::<L, F, R, S>(
                        sums,
                        lhs,
                        k,
                        R::load_packed(block, strip_stride, group),
                        scales,
                        F::VALUES_PER_LOAD,
                    );
                    lhs = lhs.wrapping_add(F::VALUES_PER_LOAD);
                    group = group.wrapping_add(1);
                }
                block = block.wrapping_add(F::FORMAT.strip_block_bytes());
                remaining_k = remaining_k.wrapping_sub(BLOCK_SIZE);
            }
            let mut group = 0;
            while remaining_k > 0 {
                let value_count = F::VALUES_PER_LOAD.min(remaining_k);
                let scales = R::load_scales(block, strip_stride);
                sums = mul_acc_packed::<L, F, R, S>(
                    sums,
                    lhs,
                    k,
                    R::load_packed(block, strip_stride, group),
                    scales,
                    value_count,
                );
                lhs = lhs.wrapping_add(value_count);
                group = group.wrapping_add(1);
                remaining_k = remaining_k.wrapping_sub(value_count);
            }
            sums.store_partial(out, out_stride, columns);
        }
    }
}

/// The sums plus the first `steps` steps of some words.
///
/// # Safety
/// As [`Sums`]: all rows have so many numbers.
#[inline(always)]
unsafe fn mul_acc_packed<L: Simd, F: QuantCodec, R: WeightLoad<L, F>, S: MicroTile<L, R::Dequantized>>(
    mut sums: S,
    lhs: *const f32,
    row_stride: usize,
    packed: R::Packed,
    scales: R::Scales,
    value_count: usize,
) -> S {
    macro_rules! mul_acc_values {
        ($($step:literal)+) => {
            $(if $step < F::VALUES_PER_LOAD && $step < value_count {
                // SAFETY: the caller's.
                sums = unsafe { sums.mul_acc(lhs.wrapping_add($step), row_stride, R::dequantize::<$step>(packed, scales)) };
            })+
        };
    }
    mul_acc_values!(0 1 2 3 4 5 6 7);
    sums
}
