//! Forms that multiply as whole numbers. Knows nothing of what they are multiplied with.

use super::codec::{AffineQ4, Q4_0, Q4_1, Q8_0, QuantCodec};
use crate::cpu::simd::Simd;

/// A form whose codes are bytes or halves of them, and multiply as whole numbers.
///
/// # Safety
/// As [`Coded`], but inside `Level::run_bytes`.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait IntegerDot: QuantCodec {
    /// To each lane of `sums` the products of its codes with the numbers on the left, one for each step of the words.
    unsafe fn dot_packed<L: Simd>(sums: L::U32x16, packed: Self::Packed<L>, lhs: *const i8) -> L::U32x16;
    /// What a code is multiplied by, and what is added to it then.
    unsafe fn scale_and_offset<L: Simd>(scales: Self::Scales<L>) -> (L, L);
}

impl IntegerDot for Q8_0 {
    #[inline(always)]
    unsafe fn dot_packed<L: Simd>(sums: L::U32x16, packed: L::U32x16, lhs: *const i8) -> L::U32x16 {
        // SAFETY: the caller's.
        unsafe { L::dot_u8_i8::<8>(sums, packed, lhs) }
    }

    #[inline(always)]
    unsafe fn scale_and_offset<L: Simd>(scales: (L, L)) -> (L, L) {
        scales
    }
}

macro_rules! impl_integer_dot_for_nibbles {
    ($($format:ty)+) => {$(
        impl IntegerDot for $format {
            #[inline(always)]
            unsafe fn dot_packed<L: Simd>(sums: L::U32x16, packed: (L::U32x16, L::U32x16), lhs: *const i8) -> L::U32x16 {
                // SAFETY: the caller's.
                unsafe { L::dot_u8_i8::<4>(L::dot_u8_i8::<4>(sums, packed.0, lhs), packed.1, lhs.wrapping_add(4)) }
            }

            #[inline(always)]
            unsafe fn scale_and_offset<L: Simd>(scales: (L, L)) -> (L, L) {
                scales
            }
        }
    )+};
}

impl_integer_dot_for_nibbles!(Q4_0 Q4_1 AffineQ4);
