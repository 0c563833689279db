//! Widening in one AVX-512 register.

use super::Narrow;
use crate::cpu::lanes::avx2::Avx2;
use crate::cpu::lanes::avx512::Avx512;
use std::arch::x86_64::*;

/// The word shifted right by `by` bits, left where that is negative.
#[inline(always)]
unsafe fn shifted(word: __m512i, by: i32) -> __m512i {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        match by {
            0 => word,
            1.. => _mm512_srlv_epi32(word, _mm512_set1_epi32(by)),
            _ => _mm512_sllv_epi32(word, _mm512_set1_epi32(-by)),
        }
    }
}

impl Narrow for Avx512 {
    type Words = __m512i;

    #[inline(always)]
    unsafe fn fetch_close(from: *const u8) {
        // SAFETY: a hint reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn words(from: *const u8) -> Self::Words {
        // SAFETY: the caller's pointer is good for sixteen words.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn nibbles<const INDEX: u32>(words: Self::Words) -> Self::Words {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { _mm512_and_si512(shifted(words, 4 * INDEX as i32), _mm512_set1_epi32(0x0f0f_0f0f)) }
    }

    /// Shuffles and conversions are done beside multiply-adds; shifts and masks would take their turns.
    #[inline(always)]
    unsafe fn byte<const INDEX: u32>(words: Self::Words) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            // Where the upper bit is set there will be a 0.
            let (zero, index) = (0x8080_8000_u32 as i32, INDEX as i32);
            let places = _mm512_setr4_epi32(zero | index, zero | (4 + index), zero | (8 + index), zero | (12 + index));
            Self(_mm512_cvtepi32_ps(_mm512_shuffle_epi8(words, places)))
        }
    }

    #[inline(always)]
    unsafe fn brain<const INDEX: u32>(words: Self::Words) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let upper = shifted(words, if INDEX == 0 { -16 } else { 0 });
            Self(_mm512_castsi512_ps(_mm512_and_si512(upper, mask)))
        }
    }

    #[inline(always)]
    unsafe fn signed_bytes(from: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn halves(from: *const u8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen halves.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn whole(number: i32) -> Self::Words {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { _mm512_set1_epi32(number) }
    }

    #[inline(always)]
    unsafe fn dots<const BITS: u32>(sums: Self::Words, bytes: Self::Words, left: *const i8) -> Self::Words {
        // SAFETY: the caller is inside `Level::run_bytes`, and the pointer is good for four bytes.
        unsafe { _mm512_dpbusd_epi32(sums, bytes, _mm512_set1_epi32(left.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn numbers(words: Self::Words) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        Self(unsafe { _mm512_cvtepi32_ps(words) })
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }

    #[inline(always)]
    unsafe fn turn(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: AVX-512 comes with AVX2.
        unsafe { Avx2::turn(from, from_step, to, to_step) }
    }
}
