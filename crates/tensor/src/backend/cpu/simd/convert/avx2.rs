//! Widening in two AVX2 registers.

use super::SimdConvert;
use crate::backend::cpu::simd::avx2::Avx2;
use std::arch::x86_64::*;

/// The word shifted right by `by` bits, left where that is negative.
#[inline(always)]
unsafe fn shift_right(word: __m256i, bits: i32) -> __m256i {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        match bits {
            0 => word,
            1.. => _mm256_srlv_epi32(word, _mm256_set1_epi32(bits)),
            _ => _mm256_sllv_epi32(word, _mm256_set1_epi32(-bits)),
        }
    }
}

/// Both registers shifted alike, and the bits of the mask.
#[inline(always)]
unsafe fn shift_and_mask(words: (__m256i, __m256i), bits: i32, mask: i32) -> (__m256i, __m256i) {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        let mask = _mm256_set1_epi32(mask);
        (_mm256_and_si256(shift_right(words.0, bits), mask), _mm256_and_si256(shift_right(words.1, bits), mask))
    }
}

impl SimdConvert for Avx2 {
    type U32x16 = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn prefetch_l1(src: *const u8) {
        // SAFETY: a hint reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16 {
        // SAFETY: the caller's pointer is good for sixteen words.
        unsafe { (_mm256_loadu_si256(src.cast()), _mm256_loadu_si256(src.add(32).cast())) }
    }

    #[inline(always)]
    unsafe fn unpack_nibbles<const INDEX: u32>(words: Self::U32x16) -> Self::U32x16 {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { shift_and_mask(words, 4 * INDEX as i32, 0x0f0f_0f0f) }
    }

    #[inline(always)]
    unsafe fn u8_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            let (low, high) = shift_and_mask(words, 8 * INDEX as i32, 255);
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe {
            let (low, high) = shift_and_mask(words, if INDEX == 0 { -16 } else { 0 }, 0xffff_0000_u32 as i32);
            Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(src.cast());
            let (low, high) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen halves.
        unsafe {
            let (low, high) = (_mm_loadu_si128(src.cast()), _mm_loadu_si128(src.add(16).cast()));
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::U32x16 {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { (_mm256_set1_epi32(value), _mm256_set1_epi32(value)) }
    }

    #[inline(always)]
    unsafe fn dot_u8_i8<const BITS: u32>(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16 {
        // SAFETY: the caller is inside `Level::run`, and the pointer is good for four bytes.
        unsafe {
            let lhs = _mm256_set1_epi32(lhs.cast::<i32>().read_unaligned());
            match BITS {
                4 => (dot_u4_i8(sums.0, packed.0, lhs, 1), dot_u4_i8(sums.1, packed.1, lhs, 1)),
                _ => {
                    // Pairs of whole bytes would not fit into 16 bits.
                    let (low, high) = (Self::unpack_nibbles::<0>(packed), Self::unpack_nibbles::<1>(packed));
                    let sums = (dot_u4_i8(sums.0, low.0, lhs, 1), dot_u4_i8(sums.1, low.1, lhs, 1));
                    (dot_u4_i8(sums.0, high.0, lhs, 16), dot_u4_i8(sums.1, high.1, lhs, 16))
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn i32_to_f32(words: Self::U32x16) -> Self {
        // SAFETY: the caller is inside `Level::run`.
        unsafe { Self(_mm256_cvtepi32_ps(words.0), _mm256_cvtepi32_ps(words.1)) }
    }

    #[inline(always)]
    unsafe fn store_i8(self, dst: *mut i8) {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works in halves of a register, which change places behind it.
            let pairs = _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
            _mm_storeu_si128(dst.cast(), bytes);
        }
    }

    #[inline(always)]
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: the caller's pointers are good for sixteen rows of sixteen.
        unsafe {
            transpose_8x8(src, src_stride, dst, dst_stride);
            transpose_8x8(src.add(8), src_stride, dst.add(8 * dst_stride), dst_stride);
            transpose_8x8(src.add(8 * src_stride), src_stride, dst.add(8), dst_stride);
            transpose_8x8(src.add(8 * src_stride + 8), src_stride, dst.add(8 * dst_stride + 8), dst_stride);
        }
    }
}

/// To each word of `sums` `times` the products of its four bytes, from 0 to 15, with the four signed ones on the left.
#[inline(always)]
unsafe fn dot_u4_i8(sums: __m256i, bytes: __m256i, lhs: __m256i, multiplier: i16) -> __m256i {
    // SAFETY: the caller is inside `Level::run`.
    unsafe {
        let pairs = _mm256_maddubs_epi16(bytes, lhs);
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(multiplier)))
    }
}

/// Eight rows of eight become columns: halves change places first, then pairs, then neighbours.
#[inline(always)]
unsafe fn transpose_8x8(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
    // SAFETY: the caller's pointers are good for eight rows of eight.
    unsafe {
        // Four numbers of rows r and r + 4, side by side.
        macro_rules! load_row_pair {
            ($row:literal, $column:expr) => {{
                let at = src.add($row * src_stride + $column);
                let (low, high) = (_mm_loadu_ps(at), _mm_loadu_ps(at.add(4 * src_stride)));
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
            }};
        }
        macro_rules! transpose_four_columns {
            ($half:literal) => {{
                let (a, b) = (load_row_pair!(0, 4 * $half), load_row_pair!(1, 4 * $half));
                let (c, d) = (load_row_pair!(2, 4 * $half), load_row_pair!(3, 4 * $half));
                let (ab, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let out = dst.add(4 * $half * dst_stride);
                _mm256_storeu_ps(out, _mm256_shuffle_ps::<0x44>(ab, cd));
                _mm256_storeu_ps(out.add(dst_stride), _mm256_shuffle_ps::<0xee>(ab, cd));
                _mm256_storeu_ps(out.add(2 * dst_stride), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
                _mm256_storeu_ps(out.add(3 * dst_stride), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
            }};
        }
        transpose_four_columns!(0);
        transpose_four_columns!(1);
    }
}
