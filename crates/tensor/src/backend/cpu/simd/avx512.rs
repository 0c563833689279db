//! Lanes as one AVX-512 register. Sums over lanes are those of AVX2, whose order they share.

use super::avx2::Avx2;
use super::{LANES, Simd, SimdKernel};
use std::arch::x86_64::*;

/// # Safety
/// The machine has AVX-512 F, BW and DQ, and so AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx2,fma,f16c")]
pub unsafe fn run<W: SimdKernel>(kernel: W) -> W::Output {
    // SAFETY: the caller's.
    unsafe { kernel.run::<Avx512>() }
}

/// # Safety
/// The machine has AVX-512 F, BW, DQ and VNNI, and so AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn run_int8_dot<W: SimdKernel>(kernel: W) -> W::Output {
    // SAFETY: the caller's.
    unsafe { kernel.run::<Avx512>() }
}

#[derive(Clone, Copy)]
pub struct Avx512(pub __m512);

impl Avx512 {
    #[inline(always)]
    unsafe fn split_into_avx2(self) -> Avx2 {
        // SAFETY: the caller is inside [`run`].
        unsafe { Avx2(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) }
    }
}

#[inline(always)]
fn tail_mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// All sixteen at once.
macro_rules! one_register {
    ($operation:ident, $($operand:expr),+) => {
        // SAFETY: the caller is inside [`run`].
        unsafe { Avx512($operation($($operand.0),+)) }
    };
}

impl Simd for Avx512 {
    const TILE_ROWS: usize = 12;
    const TILE_PANELS: usize = 2;

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for sixteen numbers.
        Self(unsafe { _mm512_loadu_ps(src) })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(dst, self.0) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        // SAFETY: lanes that are masked out are not read.
        Self(unsafe { _mm512_maskz_loadu_ps(tail_mask(count), src) })
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        // SAFETY: lanes that are masked out are not written.
        unsafe { _mm512_mask_storeu_ps(dst, tail_mask(count), self.0) }
    }

    #[inline(always)]
    unsafe fn prefetch_l2(src: *const f32) {
        // SAFETY: a hint reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller is inside [`run`].
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load_splat(src: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for a number.
        Self(unsafe { _mm512_set1_ps(*src) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        one_register!(_mm512_fmadd_ps, self, factor, addend)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        one_register!(_mm512_add_ps, self, other)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        one_register!(_mm512_sub_ps, self, other)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        one_register!(_mm512_mul_ps, self, other)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        one_register!(_mm512_div_ps, self, other)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        one_register!(_mm512_max_ps, self, other)
    }

    #[inline(always)]
    unsafe fn round_ties_even(self) -> Self {
        // SAFETY: the caller is inside [`run`].
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn select_negative(self, if_negative: Self, other: Self) -> Self {
        // SAFETY: the caller is inside [`run`].
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            Self(_mm512_mask_blend_ps(mask, other.0, if_negative.0))
        }
    }

    #[inline(always)]
    unsafe fn reduce_sum(self) -> f32 {
        // SAFETY: AVX-512 comes with AVX2.
        unsafe { self.split_into_avx2().reduce_sum() }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        // SAFETY: as above.
        unsafe { self.split_into_avx2().reduce_max() }
    }
}
