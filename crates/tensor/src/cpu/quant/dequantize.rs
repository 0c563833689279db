//! Weights widened into a buffer, for products that read them many times.

use super::codec::QuantCodec;
use super::format::{BLOCK_SIZE, STRIP_COLUMNS};
use super::quantized_weight::QuantizedWeight;
use super::weight_load::{SingleStrip, WeightLoad};
use crate::cpu::micro_tile::PanelVec;
use crate::cpu::simd::{LANES, Simd, SimdKernel};
use std::marker::PhantomData;

/// Numbers of a strip's block when it is widened.
pub const DEQUANTIZED_BLOCK_LEN: usize = BLOCK_SIZE * STRIP_COLUMNS;

/// Which way a block's numbers lie in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockLayout {
    /// `(depth, 32 columns)`, as `x·Wᵀ` reads them.
    InputByOutput,
    /// `(32 columns, depth)`, as `dY·W` does.
    OutputByInput,
}

/// Some neighbouring blocks, the first from `block` on, each [`WIDE`] numbers further in the buffer.
pub struct DequantizeBlocks<'a, F> {
    pub weights: &'a QuantizedWeight,
    /// The first block's place in the weights, and how far it is from one to the next, in bytes.
    pub first_offset: usize,
    pub block_stride: usize,
    /// How far it is from a block to the one that will be widened at its place the next time, in bytes.
    pub prefetch_distance: usize,
    pub layout: BlockLayout,
    pub out: &'a mut [f32],
    pub codec: PhantomData<F>,
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
