//! Codecs of GGUF's k-quants, whose blocks share scales of their scales.

use super::{
    BlockPtr, CodePair, F16_VECTOR_BYTES, QuantCodec, dequantize_code_pair, impl_code_pair_codec, load_code_pair,
};
use crate::backend::cpu::simd::{LANES, Simd};
use crate::quant::{BLOCK_SIZE, QuantFormat};

#[derive(Clone, Copy)]
pub struct Q2K;
#[derive(Clone, Copy)]
pub struct Q3K;
#[derive(Clone, Copy)]
pub struct Q4K;
#[derive(Clone, Copy)]
pub struct Q5K;
#[derive(Clone, Copy)]
pub struct Q6K;

impl_code_pair_codec!(Q4K, 1, load_scales_and_minima);
impl_code_pair_codec!(Q5K, 1, load_scales_and_minima);

/// Loads scales and minima of a byte each, and multiplies them by the scales of the superblock.
///
/// # Safety
/// As for [`QuantCodec`].
#[inline(always)]
unsafe fn load_scales_and_minima<L: Simd>(block: BlockPtr, panel: usize) -> (L, L) {
    // SAFETY: the same contract; the minima follow the scales.
    unsafe { load_affine_scales(block, panel, 1, 0) }
}

/// Loads the scale and the minimum of a span, where a block has `spans` scales and as many minima, of an unsigned byte each, and
/// multiplies them by the scales of the superblock.
///
/// # Safety
/// As for [`QuantCodec`].
#[inline(always)]
unsafe fn load_affine_scales<L: Simd>(block: BlockPtr, panel: usize, spans: usize, span: usize) -> (L, L) {
    let superblock_scales = block.superblock.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES));
    let scales = block.block.wrapping_add(span.wrapping_mul(2).wrapping_add(panel).wrapping_mul(LANES));
    // SAFETY: the superblock starts with its scales, the block with the scales and the minima; the CPU supports the
    // instructions of `L`.
    unsafe {
        let (scale, minimum) =
            (L::load_u8(scales), L::load_u8(scales.wrapping_add(spans.wrapping_mul(2).wrapping_mul(LANES))));
        let scale_of_minima = superblock_scales.wrapping_add(2 * F16_VECTOR_BYTES);
        (scale.mul(L::load_f16(superblock_scales)), minimum.mul(L::load_f16(scale_of_minima)))
    }
}

/// Codec whose blocks have two spans of sixteen weights, each with its own scale.
///
/// # Safety
/// As for [`QuantCodec`].
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait SpanScales: QuantCodec {
    /// Loads the scale of a span, and the value of code 0.
    unsafe fn load_span_scales<L: Simd>(block: BlockPtr, panel: usize, span: usize) -> (L, L);
}

macro_rules! impl_span_codec {
    ($codec:ident, $scale_lines:literal, |$block:ident, $panel:ident, $span:ident| $scales:expr) => {
        impl SpanScales for $codec {
            #[inline(always)]
            unsafe fn load_span_scales<L: Simd>($block: BlockPtr, $panel: usize, $span: usize) -> (L, L) {
                // SAFETY: the same contract.
                unsafe { $scales }
            }
        }

        impl QuantCodec for $codec {
            const FORMAT: QuantFormat = QuantFormat::$codec;
            const VALUES_PER_LOAD: usize = 8;
            type Scales<L: Simd> = ();
            /// Codes, the scale of their span, and the value of code 0.
            type Packed<L: Simd> = (CodePair<L>, L, L);

            #[inline(always)]
            unsafe fn load_scales<L: Simd>(_: BlockPtr, _: usize) {}

            #[inline(always)]
            unsafe fn load_packed<L: Simd>(block: BlockPtr, panel: usize, group: usize) -> (CodePair<L>, L, L) {
                // SAFETY: the same contract.
                unsafe {
                    let span = group / (BLOCK_SIZE / 2 / Self::VALUES_PER_LOAD);
                    let (scale, offset) = Self::load_span_scales::<L>(block, panel, span);
                    (load_code_pair::<L, Self, $scale_lines>(block, panel, group), scale, offset)
                }
            }

            #[inline(always)]
            unsafe fn dequantize<L: Simd, const STEP: u32>((codes, scale, offset): (CodePair<L>, L, L), (): ()) -> L {
                // SAFETY: the same contract.
                unsafe { dequantize_code_pair::<L, STEP>(codes, scale, offset) }
            }
        }
    };
}

impl_span_codec!(Q2K, 2, |block, panel, span| load_affine_scales(block, panel, 2, span));
impl_span_codec!(Q3K, 1, |block, panel, span| load_centered_scales(block, panel, span, 4.0));
impl_span_codec!(Q6K, 1, |block, panel, span| load_centered_scales(block, panel, span, 32.0));

/// Loads the signed scales s of a span, and returns s and −`zero_point` · s.
///
/// # Safety
/// As for [`QuantCodec`].
#[inline(always)]
unsafe fn load_centered_scales<L: Simd>(block: BlockPtr, panel: usize, span: usize, zero_point: f32) -> (L, L) {
    let scales = block.block.wrapping_add(span.wrapping_mul(2).wrapping_add(panel).wrapping_mul(LANES));
    // SAFETY: the superblock starts with its scales, the block with the scales; the CPU supports the instructions of `L`.
    unsafe {
        let superblock_scale = L::load_f16(block.superblock.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES)));
        let scale = L::load_i8(scales.cast()).mul(superblock_scale);
        (scale, scale.mul(L::splat(-zero_point)))
    }
}
