//! Widening in one AVX-512 register.

use super::SimdConvert;
use crate::backend::cpu::simd::avx2::Avx2;
use crate::backend::cpu::simd::avx512::Avx512;
use std::arch::x86_64::*;

/// The word shifted right by `by` bits, left where that is negative.
#[inline(always)]
unsafe fn shift_right(word: __m512i, bits: i32) -> __m512i {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        match bits {
            0 => word,
            1.. => _mm512_srlv_epi32(word, _mm512_set1_epi32(bits)),
            _ => _mm512_sllv_epi32(word, _mm512_set1_epi32(-bits)),
        }
    }
}

impl SimdConvert for Avx512 {
    type U32x16 = __m512i;

    #[inline(always)]
    unsafe fn prefetch_l1(src: *const u8) {
        // SAFETY: a hint reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16 {
        // SAFETY: the caller's pointer is good for sixteen words.
        unsafe { _mm512_loadu_si512(src.cast()) }
    }

    #[inline(always)]
    unsafe fn unpack_nibbles<const INDEX: u32>(words: Self::U32x16) -> Self::U32x16 {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { _mm512_and_si512(shift_right(words, 4 * INDEX as i32), _mm512_set1_epi32(0x0f0f_0f0f)) }
    }

    /// Shuffles and conversions are done beside multiply-adds; shifts and masks would take their turns.
    #[inline(always)]
    unsafe fn u8_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            // Where the upper bit is set there will be a 0.
            let (zero, index) = (0x8080_8000_u32 as i32, INDEX as i32);
            let shuffle_indices =
                _mm512_setr4_epi32(zero | index, zero | (4 + index), zero | (8 + index), zero | (12 + index));
            Self(_mm512_cvtepi32_ps(_mm512_shuffle_epi8(words, shuffle_indices)))
        }
    }

    #[inline(always)]
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let upper = shift_right(words, if INDEX == 0 { -16 } else { 0 });
            Self(_mm512_castsi512_ps(_mm512_and_si512(upper, mask)))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(src.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen halves.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(src.cast()))) }
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::U32x16 {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn dot_u8_i8<const BITS: u32>(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16 {
        // SAFETY: the caller is inside `Level::run_bytes`, and the pointer is good for four bytes.
        unsafe { _mm512_dpbusd_epi32(sums, packed, _mm512_set1_epi32(lhs.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn i32_to_f32(words: Self::U32x16) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        Self(unsafe { _mm512_cvtepi32_ps(words) })
    }

    #[inline(always)]
    unsafe fn store_i8(self, dst: *mut i8) {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { _mm_storeu_si128(dst.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }

    #[inline(always)]
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: AVX-512 comes with AVX2.
        unsafe { Avx2::transpose_16x16(src, src_stride, dst, dst_stride) }
    }
}
