//! Lanes as two AVX2 registers.

use super::{LANES, Simd, SimdKernel};
use std::arch::x86_64::*;

/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<W: SimdKernel>(kernel: W) -> W::Output {
    // SAFETY: the caller's.
    unsafe { kernel.run::<Avx2>() }
}

#[derive(Clone, Copy)]
pub struct Avx2(pub __m256, pub __m256);

/// Both halves alike.
macro_rules! both_registers {
    ($operation:ident, $($operand:expr),+) => {
        // SAFETY: the caller is inside [`run`].
        unsafe { Avx2($operation($($operand.0),+), $operation($($operand.1),+)) }
    };
}

impl Simd for Avx2 {
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for sixteen numbers.
        unsafe { Self(_mm256_loadu_ps(src), _mm256_loadu_ps(src.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(dst, self.0);
            _mm256_storeu_ps(dst.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        if count >= LANES {
            // SAFETY: the caller's.
            return unsafe { Self::load(src) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's pointer is good for `count` numbers.
        unsafe {
            std::ptr::copy_nonoverlapping(src, lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        if count >= LANES {
            // SAFETY: the caller's.
            return unsafe { self.store(dst) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: as above.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), dst, count);
        }
    }

    #[inline(always)]
    unsafe fn prefetch_l2(src: *const f32) {
        // SAFETY: a hint reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller is inside [`run`].
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn load_splat(src: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for a number.
        let half = unsafe { _mm256_broadcast_ss(&*src) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        both_registers!(_mm256_fmadd_ps, self, factor, addend)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        both_registers!(_mm256_add_ps, self, other)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        both_registers!(_mm256_sub_ps, self, other)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        both_registers!(_mm256_mul_ps, self, other)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        both_registers!(_mm256_div_ps, self, other)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        both_registers!(_mm256_max_ps, self, other)
    }

    #[inline(always)]
    unsafe fn round_ties_even(self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            Self(
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0),
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), bias);
            let high = _mm256_add_epi32(_mm256_cvtps_epi32(self.1), bias);
            let (low, high) = (_mm256_slli_epi32::<23>(low), _mm256_slli_epi32::<23>(high));
            Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn select_negative(self, if_negative: Self, other: Self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let zero = _mm256_setzero_ps();
            let low_mask = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, zero);
            let high_mask = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, zero);
            Self(
                _mm256_blendv_ps(other.0, if_negative.0, low_mask),
                _mm256_blendv_ps(other.1, if_negative.1, high_mask),
            )
        }
    }

    #[inline(always)]
    unsafe fn reduce_sum(self) -> f32 {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
