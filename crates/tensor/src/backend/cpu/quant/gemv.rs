//! Products with few rows (GEMV): weights are dequantized in registers between memory and the multiply-adds.
//!
//! Bound by memory with one row and by arithmetic with many, because every tile of rows dequantizes all weights again.

use super::CACHE_LINE_BYTES;
use super::codec::{BlockPtr, QuantCodec};
use super::column_slice::ColumnSlice;
use super::weight::QuantizedWeight;
use crate::backend::cpu::gemm::AccumulatorInit;
use crate::backend::cpu::micro_tile::{
    MicroTile, PanelPair, PanelVec, Rows1, Rows2, Rows3, Rows4, Rows5, Rows6, Rows7, Rows8, SinglePanel,
    dispatch_tile_rows,
};
use crate::backend::cpu::simd::{Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, STRIP_COLUMNS};
use std::marker::PhantomData;

/// Panels of adjacent strips at one step of k.
///
/// # Safety
/// As for [`QuantCodec`]; `stride` is the distance between strips in bytes.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait WeightLoad<L: Simd, F: QuantCodec> {
    const STRIPS: usize;
    type Dequantized: PanelVec<L>;
    type Scales: Copy;
    type Packed: Copy;

    unsafe fn load_scales(block: BlockPtr, stride: usize) -> Self::Scales;
    unsafe fn load_packed(block: BlockPtr, stride: usize, group: usize) -> Self::Packed;
    unsafe fn dequantize<const STEP: u32>(packed: Self::Packed, scales: Self::Scales) -> Self::Dequantized;
    /// Prefetches a cache line of each strip.
    unsafe fn prefetch(address: *const u8, stride: usize);
}

/// Loads one strip of 32 columns.
pub struct SingleStrip;

/// The two panels of one strip.
impl<L: Simd, F: QuantCodec> WeightLoad<L, F> for SingleStrip {
    const STRIPS: usize = 1;
    type Dequantized = PanelPair<SinglePanel<L>>;
    type Scales = (F::Scales<L>, F::Scales<L>);
    type Packed = (F::Packed<L>, F::Packed<L>);

    #[inline(always)]
    unsafe fn load_scales(block: BlockPtr, _: usize) -> Self::Scales {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe { (F::load_scales::<L>(block, 0), F::load_scales::<L>(block, 1)) }
    }

    #[inline(always)]
    unsafe fn load_packed(block: BlockPtr, _: usize, group: usize) -> Self::Packed {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe { (F::load_packed::<L>(block, 0, group), F::load_packed::<L>(block, 1, group)) }
    }

    #[inline(always)]
    unsafe fn dequantize<const STEP: u32>(packed: Self::Packed, scales: Self::Scales) -> Self::Dequantized {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe {
            let first = F::dequantize::<L, STEP>(packed.0, scales.0);
            PanelPair(SinglePanel(first), SinglePanel(F::dequantize::<L, STEP>(packed.1, scales.1)))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8, _: usize) {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe { L::prefetch_l1(address) }
    }
}

/// Loads two neighbouring groups of strips.
pub struct StripPair<R>(R);

impl<L: Simd, F: QuantCodec, R: WeightLoad<L, F>> WeightLoad<L, F> for StripPair<R> {
    const STRIPS: usize = 2 * R::STRIPS;
    type Dequantized = PanelPair<R::Dequantized>;
    type Scales = (R::Scales, R::Scales);
    type Packed = (R::Packed, R::Packed);

    #[inline(always)]
    unsafe fn load_scales(block: BlockPtr, stride: usize) -> Self::Scales {
        let next_block = block.wrapping_add(R::STRIPS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe { (R::load_scales(block, stride), R::load_scales(next_block, stride)) }
    }

    #[inline(always)]
    unsafe fn load_packed(block: BlockPtr, stride: usize, group: usize) -> Self::Packed {
        let next_block = block.wrapping_add(R::STRIPS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe { (R::load_packed(block, stride, group), R::load_packed(next_block, stride, group)) }
    }

    #[inline(always)]
    unsafe fn dequantize<const STEP: u32>(packed: Self::Packed, scales: Self::Scales) -> Self::Dequantized {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe { PanelPair(R::dequantize::<STEP>(packed.0, scales.0), R::dequantize::<STEP>(packed.1, scales.1)) }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8, stride: usize) {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part that they
        // are passed to; the CPU supports `L`.
        unsafe {
            R::prefetch(address, stride);
            R::prefetch(address.wrapping_add(R::STRIPS.wrapping_mul(stride)), stride);
        }
    }
}

/// Prefetch distance in bytes.
const PREFETCH_DISTANCE: usize = 2048;

/// Cache lines of a block that are prefetched before its codes are loaded, and with each load of codes. Prefetches are spread out: too
/// many at once exceed the line fill buffers and stall. 16-bit formats have none: the hardware prefetcher suffices.
const fn prefetched_lines<F: QuantCodec>() -> (usize, usize) {
    let (lines, loads) = (F::FORMAT.strip_block_bytes() / CACHE_LINE_BYTES, BLOCK_SIZE / F::VALUES_PER_LOAD);
    match F::FORMAT.code_bits() {
        16 => (0, 0),
        _ if lines < 2 * loads => (lines - loads, 1),
        _ => (lines - 2 * loads, 2),
    }
}

/// Maximum rows per tile: more gain little and take long to compile.
const MAX_TILE_ROWS: usize = 8;

/// `out[row, column] = init + Σ lhs[row, k] · weight[column, k]`
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
        assert!(rows * self.weights.in_features() <= self.lhs.len(), "the left-hand side holds every row");
        assert!(
            self.weights.format() == F::FORMAT && columns.end <= self.weights.out_features(),
            "the weight has the format and the columns"
        );
        assert!(columns.start.is_multiple_of(STRIP_COLUMNS), "the columns start at a strip");
        if let AccumulatorInit::Bias(bias) = self.init {
            assert!(columns.end <= bias.len(), "the bias holds every column");
        }
        let (mut strip, end) = (columns.start / STRIP_COLUMNS, columns.end.div_ceil(STRIP_COLUMNS));
        let max_rows = (L::TILE_ROWS * L::TILE_PANELS / 2).min(MAX_TILE_ROWS);
        while strip < end {
            // The panels of one strip are too few to hide the latency of one row's multiply-adds.
            let uses_strip_pair = L::TILE_PANELS > 1 && rows <= 2 && strip + 2 <= end;
            let mut row = 0;
            while row < rows {
                // Tiles of nearly equal size.
                let tile_rows = (rows - row).div_ceil((rows - row).div_ceil(max_rows));
                // SAFETY: the strips start within this slice's columns, the tile's rows exist, and the operands were checked
                // above; the CPU supports `L`.
                unsafe {
                    match tile_rows {
                        1 if uses_strip_pair => self.run_tile::<L, StripPair<SingleStrip>, Rows1<_>>(strip, row),
                        2 if uses_strip_pair => self.run_tile::<L, StripPair<SingleStrip>, Rows2<_>>(strip, row),
                        _ => dispatch_tile_rows!(
                            tile_rows, max_rows, (self.run_tile)[L, SingleStrip](strip, row),
                            1 => Rows1<_>, 2 => Rows2<_>, 3 => Rows3<_>, 4 => Rows4<_>,
                            5 => Rows5<_>, 6 => Rows6<_>, 7 => Rows7<_>, 8 => Rows8<_>,
                        ),
                    }
                }
                row += tile_rows;
            }
            strip += if uses_strip_pair { 2 } else { 1 };
        }
    }
}

impl<F: QuantCodec> QuantGemv<'_, '_, F> {
    /// # Safety
    /// The strips of `R` from `strip` on start within the output's columns, rows `row..row + S::ROWS` exist, and the
    /// CPU supports the instructions of `L`.
    #[inline(always)]
    unsafe fn run_tile<L: Simd, R: WeightLoad<L, F>, S: MicroTile<L, R::Dequantized>>(
        &mut self,
        strip: usize,
        row: usize,
    ) {
        let (column, k, strip_stride) = (strip * STRIP_COLUMNS, self.weights.in_features(), self.weights.strip_bytes());
        let columns = self.output.columns().end - column;
        let (out, out_stride) = (self.output.ptr_at(row, column), self.output.row_stride());
        // SAFETY: `run` has checked that the bias has every column, `lhs` every row and the weight every strip; partial
        // accesses stop at the last column. The CPU supports `L`.
        unsafe {
            let mut sums = match self.init {
                AccumulatorInit::Zero => S::splat_row(R::Dequantized::zero()),
                AccumulatorInit::Output => S::load_partial(out, out_stride, columns),
                AccumulatorInit::Bias(bias) => {
                    S::splat_row(R::Dequantized::load_partial(bias.as_ptr().add(column), columns))
                }
            };
            let mut lhs = self.lhs.as_ptr().add(row * k);
            let strip_ptr = self.weights.as_bytes().as_ptr().add(strip * strip_stride);
            let (mut index, mut remaining_k) = (0, k);
            while remaining_k >= BLOCK_SIZE {
                let block = BlockPtr::new(F::FORMAT, strip_ptr, index);
                let scales = R::load_scales(block, strip_stride);
                let mut prefetch_address = block.address().wrapping_add(PREFETCH_DISTANCE);
                let (lines_per_block, lines_per_load) = const { prefetched_lines::<F>() };
                let mut line = 0;
                while line < lines_per_block {
                    R::prefetch(prefetch_address, strip_stride);
                    prefetch_address = prefetch_address.wrapping_add(CACHE_LINE_BYTES);
                    line = line.wrapping_add(1);
                }
                let mut group = 0;
                while group < BLOCK_SIZE / F::VALUES_PER_LOAD {
                    let mut line = 0;
                    while line < lines_per_load {
                        R::prefetch(prefetch_address, strip_stride);
                        prefetch_address = prefetch_address.wrapping_add(CACHE_LINE_BYTES);
                        line = line.wrapping_add(1);
                    }
                    let packed = R::load_packed(block, strip_stride, group);
                    sums = mul_acc_packed::<L, F, R, S>(sums, lhs, k, packed, scales, F::VALUES_PER_LOAD);
                    lhs = lhs.wrapping_add(F::VALUES_PER_LOAD);
                    group = group.wrapping_add(1);
                }
                index = index.wrapping_add(1);
                remaining_k = remaining_k.wrapping_sub(BLOCK_SIZE);
            }
            let mut group = 0;
            while remaining_k > 0 {
                let block = BlockPtr::new(F::FORMAT, strip_ptr, index);
                let value_count = F::VALUES_PER_LOAD.min(remaining_k);
                let scales = R::load_scales(block, strip_stride);
                let packed = R::load_packed(block, strip_stride, group);
                sums = mul_acc_packed::<L, F, R, S>(sums, lhs, k, packed, scales, value_count);
                lhs = lhs.wrapping_add(value_count);
                group = group.wrapping_add(1);
                remaining_k = remaining_k.wrapping_sub(value_count);
            }
            sums.store_partial(out, out_stride, columns);
        }
    }
}

/// Adds the first `value_count` steps of a load to the sums.
///
/// # Safety
/// As for [`MicroTile`]: every row has `value_count` values at `lhs`.
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
                // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each part
                // that they are passed to; the CPU supports `L`.
                sums = unsafe { sums.mul_acc(lhs.wrapping_add($step), row_stride, R::dequantize::<$step>(packed, scales)) };
            })+
        };
    }
    mul_acc_values!(0 1 2 3 4 5 6 7);
    sums
}
