//! Products of codes with int8 activations, for each format.

use super::codec::{BlockPtr, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_1, Q5K, Q6K, Q7Group64, Q8_0, QuantCodec, SpanScales};
use crate::backend::cpu::simd::Simd;

/// Format whose codes multiply as bytes.
///
/// # Safety
/// As for [`QuantCodec`], but called from `Isa::run_int8_dot`.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait IntegerDot: QuantCodec {
    /// Whether a weight is code · scale + minimum. Otherwise it is (code − zero point) · scale.
    const HAS_MINIMUM: bool;
    /// Binary logarithm of the zero point.
    const ZERO_POINT_BITS: u32;

    /// Adds to each lane of `sums` the products of its codes with the bytes at `lhs`, one per step of the load.
    unsafe fn dot_packed<L: Simd>(sums: L::U32x16, packed: Self::Packed<L>, lhs: *const i8) -> L::U32x16;
    /// Factor of the sums of a span of [`values_per_scale`](crate::quant::QuantFormat::values_per_scale) weights, and its minimum if the format has one.
    unsafe fn span_scale_and_minimum<L: Simd>(block: BlockPtr, panel: usize, span: usize) -> (L, L);
}

macro_rules! impl_integer_dot {
    ($($codec:ident {
        minimum: $has_minimum:literal,
        zero_point_bits: $zero_point_bits:literal,
        dot: |$sums:ident, $packed:pat_param, $lhs:ident| $dot:expr,
        scale: |$block:ident, $panel:ident, $span:pat_param| $scale:expr,
    })+) => {$(
        impl IntegerDot for $codec {
            const HAS_MINIMUM: bool = $has_minimum;
            const ZERO_POINT_BITS: u32 = $zero_point_bits;

            #[inline(always)]
            unsafe fn dot_packed<L: Simd>($sums: L::U32x16, $packed: Self::Packed<L>, $lhs: *const i8) -> L::U32x16 {
                // SAFETY: the same contract.
                unsafe { $dot }
            }

            #[inline(always)]
            unsafe fn span_scale_and_minimum<L: Simd>($block: BlockPtr, $panel: usize, $span: usize) -> (L, L) {
                // SAFETY: the same contract.
                unsafe { $scale }
            }
        }
    )+};
}

impl_integer_dot! {
    Q8_0 {
        minimum: false,
        zero_point_bits: 7,
        dot: |sums, packed, lhs| L::dot_u8_i8(sums, packed, lhs),
        scale: |block, panel, _| Self::load_scales(block, panel),
    }
    Q7Group64 {
        minimum: false,
        zero_point_bits: 6,
        dot: |sums, packed, lhs| L::dot_u8_i8(sums, packed, lhs),
        scale: |block, panel, _| Self::load_scales(block, panel),
    }
}

macro_rules! impl_code_pair_dot {
    ($($codec:ident: minimum $has_minimum:literal, zero_point_bits $zero_point_bits:literal;)+) => {
        impl_integer_dot! {$(
            $codec {
                minimum: $has_minimum,
                zero_point_bits: $zero_point_bits,
                dot: |sums, packed, lhs| L::dot_u6_i8_pair(sums, packed, lhs),
                scale: |block, panel, _| Self::load_scales(block, panel),
            }
        )+}
    };
}

impl_code_pair_dot! {
    Q4_0: minimum false, zero_point_bits 3;
    Q4_1: minimum true, zero_point_bits 0;
    Q5_1: minimum true, zero_point_bits 0;
    Q4K: minimum true, zero_point_bits 0;
    Q5K: minimum true, zero_point_bits 0;
}

/// For formats whose blocks have a scale per span.
macro_rules! impl_span_dot {
    ($($codec:ident: minimum $has_minimum:literal, zero_point_bits $zero_point_bits:literal;)+) => {
        impl_integer_dot! {$(
            $codec {
                minimum: $has_minimum,
                zero_point_bits: $zero_point_bits,
                dot: |sums, (codes, ..), lhs| L::dot_u6_i8_pair(sums, codes, lhs),
                scale: |block, panel, span| Self::load_span_scales(block, panel, span),
            }
        )+}
    };
}

impl_span_dot! {
    Q2K: minimum true, zero_point_bits 0;
    Q3K: minimum false, zero_point_bits 2;
    Q6K: minimum false, zero_point_bits 5;
}
