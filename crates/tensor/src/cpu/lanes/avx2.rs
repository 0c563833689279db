//! Lanes as two AVX2 registers.

use super::{LANES, Lanes, Work};
use std::arch::x86_64::*;

/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<W: Work>(work: W) -> W::Output {
    // SAFETY: the caller's.
    unsafe { work.run::<Avx2>() }
}

#[derive(Clone, Copy)]
pub struct Avx2(pub __m256, pub __m256);

/// Both halves alike.
macro_rules! halves {
    ($operation:ident, $($operand:expr),+) => {
        // SAFETY: the caller is inside [`run`].
        unsafe { Avx2($operation($($operand.0),+), $operation($($operand.1),+)) }
    };
}

impl Lanes for Avx2 {
    const TILE_ROWS: usize = 6;
    const TILE_WIDTH: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for sixteen numbers.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        if count >= LANES {
            // SAFETY: the caller's.
            return unsafe { Self::load(from) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's pointer is good for `count` numbers.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        if count >= LANES {
            // SAFETY: the caller's.
            return unsafe { self.store(to) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: as above.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
        }
    }

    #[inline(always)]
    unsafe fn fetch(from: *const f32) {
        // SAFETY: a hint reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller is inside [`run`].
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn splat_from(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for a number.
        let half = unsafe { _mm256_broadcast_ss(&*from) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn fused(self, by: Self, plus: Self) -> Self {
        halves!(_mm256_fmadd_ps, self, by, plus)
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        halves!(_mm256_add_ps, self, other)
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        halves!(_mm256_sub_ps, self, other)
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        halves!(_mm256_mul_ps, self, other)
    }

    #[inline(always)]
    unsafe fn over(self, other: Self) -> Self {
        halves!(_mm256_div_ps, self, other)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        halves!(_mm256_max_ps, self, other)
    }

    #[inline(always)]
    unsafe fn rounded(self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            Self(
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0),
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let one = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), bias);
            let other = _mm256_add_epi32(_mm256_cvtps_epi32(self.1), bias);
            let (one, other) = (_mm256_slli_epi32::<23>(one), _mm256_slli_epi32::<23>(other));
            Self(_mm256_castsi256_ps(one), _mm256_castsi256_ps(other))
        }
    }

    #[inline(always)]
    unsafe fn where_negative(self, negative: Self, other: Self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let zero = _mm256_setzero_ps();
            let first = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, zero);
            let second = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, zero);
            Self(_mm256_blendv_ps(other.0, negative.0, first), _mm256_blendv_ps(other.1, negative.1, second))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
