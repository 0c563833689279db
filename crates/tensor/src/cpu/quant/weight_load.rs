//! Which panels are widened at once, as types: those of one strip, or of neighbouring strips.
//!
//! As tiles are ([`crate::cpu::tile`]), and for the same reason.

use super::codec::QuantCodec;
use crate::cpu::micro_tile::{PanelPair, PanelVec, SinglePanel};
use crate::cpu::simd::Simd;

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
