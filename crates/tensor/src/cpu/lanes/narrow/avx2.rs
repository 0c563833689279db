//! Widening in two AVX2 registers.

use super::Narrow;
use crate::cpu::lanes::avx2::Avx2;
use std::arch::x86_64::*;

/// The word shifted right by `by` bits, left where that is negative.
#[inline(always)]
unsafe fn shifted(word: __m256i, by: i32) -> __m256i {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        match by {
            0 => word,
            1.. => _mm256_srlv_epi32(word, _mm256_set1_epi32(by)),
            _ => _mm256_sllv_epi32(word, _mm256_set1_epi32(-by)),
        }
    }
}

/// Both registers shifted alike, and the bits of the mask.
#[inline(always)]
unsafe fn masked(words: (__m256i, __m256i), by: i32, mask: i32) -> (__m256i, __m256i) {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        let mask = _mm256_set1_epi32(mask);
        (_mm256_and_si256(shifted(words.0, by), mask), _mm256_and_si256(shifted(words.1, by), mask))
    }
}

impl Narrow for Avx2 {
    type Words = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn fetch_close(from: *const u8) {
        // SAFETY: a hint reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn words(from: *const u8) -> Self::Words {
        // SAFETY: the caller's pointer is good for sixteen words.
        unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())) }
    }

    #[inline(always)]
    unsafe fn nibbles<const INDEX: u32>(words: Self::Words) -> Self::Words {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { masked(words, 4 * INDEX as i32, 0x0f0f_0f0f) }
    }

    #[inline(always)]
    unsafe fn byte<const INDEX: u32>(words: Self::Words) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            let (low, high) = masked(words, 8 * INDEX as i32, 255);
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn brain<const INDEX: u32>(words: Self::Words) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            let (low, high) = masked(words, if INDEX == 0 { -16 } else { 0 }, 0xffff_0000_u32 as i32);
            Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn signed_bytes(from: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            let (low, high) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn halves(from: *const u8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen halves.
        unsafe {
            let (low, high) = (_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(16).cast()));
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn whole(number: i32) -> Self::Words {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { (_mm256_set1_epi32(number), _mm256_set1_epi32(number)) }
    }

    #[inline(always)]
    unsafe fn dots<const BITS: u32>(sums: Self::Words, bytes: Self::Words, left: *const i8) -> Self::Words {
        // SAFETY: the caller is inside `Level::run`, and the pointer is good for four bytes.
        unsafe {
            let left = _mm256_set1_epi32(left.cast::<i32>().read_unaligned());
            match BITS {
                4 => (small_dots(sums.0, bytes.0, left, 1), small_dots(sums.1, bytes.1, left, 1)),
                _ => {
                    // Pairs of whole bytes would not fit into 16 bits.
                    let (low, high) = (Self::nibbles::<0>(bytes), Self::nibbles::<1>(bytes));
                    let sums = (small_dots(sums.0, low.0, left, 1), small_dots(sums.1, low.1, left, 1));
                    (small_dots(sums.0, high.0, left, 16), small_dots(sums.1, high.1, left, 16))
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn numbers(words: Self::Words) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { Self(_mm256_cvtepi32_ps(words.0), _mm256_cvtepi32_ps(words.1)) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works in halves of a register, which change places behind it.
            let pairs = _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
            _mm_storeu_si128(to.cast(), bytes);
        }
    }

    #[inline(always)]
    unsafe fn turn(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: the caller's pointers are good for sixteen rows of sixteen.
        unsafe {
            turn_eight(from, from_step, to, to_step);
            turn_eight(from.add(8), from_step, to.add(8 * to_step), to_step);
            turn_eight(from.add(8 * from_step), from_step, to.add(8), to_step);
            turn_eight(from.add(8 * from_step + 8), from_step, to.add(8 * to_step + 8), to_step);
        }
    }
}

/// To each word of `sums` `times` the products of its four bytes, from 0 to 15, with the four signed ones on the left.
#[inline(always)]
unsafe fn small_dots(sums: __m256i, bytes: __m256i, left: __m256i, times: i16) -> __m256i {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        let pairs = _mm256_maddubs_epi16(bytes, left);
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(times)))
    }
}

/// Eight rows of eight become columns: halves change places first, then pairs, then neighbours.
#[inline(always)]
unsafe fn turn_eight(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    // SAFETY: the caller's pointers are good for eight rows of eight.
    unsafe {
        // Four numbers of rows r and r + 4, side by side.
        macro_rules! pair {
            ($row:literal, $column:expr) => {{
                let at = from.add($row * from_step + $column);
                let (low, high) = (_mm_loadu_ps(at), _mm_loadu_ps(at.add(4 * from_step)));
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
            }};
        }
        macro_rules! four_columns {
            ($half:literal) => {{
                let (a, b) = (pair!(0, 4 * $half), pair!(1, 4 * $half));
                let (c, d) = (pair!(2, 4 * $half), pair!(3, 4 * $half));
                let (ab, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let out = to.add(4 * $half * to_step);
                _mm256_storeu_ps(out, _mm256_shuffle_ps::<0x44>(ab, cd));
                _mm256_storeu_ps(out.add(to_step), _mm256_shuffle_ps::<0xee>(ab, cd));
                _mm256_storeu_ps(out.add(2 * to_step), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
                _mm256_storeu_ps(out.add(3 * to_step), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
            }};
        }
        four_columns!(0);
        four_columns!(1);
    }
}
