//! AVX2 implementation: sixteen lanes in two registers.

use super::{LANES, Simd, SimdConvert, SimdKernel};
use std::arch::x86_64::*;

/// # Safety
/// The CPU supports AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<W: SimdKernel>(kernel: W) -> W::Output {
    // SAFETY: the contract of this function is that the CPU supports AVX2, FMA and F16C.
    unsafe { kernel.run::<Avx2>() }
}

#[derive(Clone, Copy)]
pub struct Avx2(pub __m256, pub __m256);

/// Applies an intrinsic to both registers.
macro_rules! both_registers {
    ($operation:ident, $($operand:expr),+) => {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and FMA.
        unsafe { Avx2($operation($($operand.0),+), $operation($($operand.1),+)) }
    };
}

/// Reduces four vectors at once: their lanes are transposed by fours, so that each operation reduces all of them.
macro_rules! reduce_four {
    ($vectors:expr, $operation:ident, $operation_128:ident) => {{
        let [a, b, c, d] = $vectors;
        let mut reduced = [0.0; 4];
        // SAFETY: only register operations and a store of four values; the trait requires a CPU with AVX2 and FMA.
        unsafe {
            let (a, b) = ($operation(a.0, a.1), $operation(b.0, b.1));
            let (c, d) = ($operation(c.0, c.1), $operation(d.0, d.1));
            let ab = $operation(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let cd = $operation(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let eight = $operation(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
            let four = $operation_128(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            _mm_storeu_ps(reduced.as_mut_ptr(), four);
        }
        reduced
    }};
}

impl Simd for Avx2 {
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
    /// With three rows some of the integer sums would stay in memory.
    const INT8_TILE_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the trait requires AVX2 and `src` to be readable for sixteen values.
        unsafe { Self(_mm256_loadu_ps(src), _mm256_loadu_ps(src.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: the trait requires AVX2 and `dst` to be writable for sixteen values.
        unsafe {
            _mm256_storeu_ps(dst, self.0);
            _mm256_storeu_ps(dst.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        if count >= LANES {
            // SAFETY: the contract of this function is that the CPU supports AVX2, FMA and F16C.
            return unsafe { Self::load(src) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: the trait requires AVX2 and `src` to be readable for `count` values; masked lanes are not read.
        unsafe {
            std::ptr::copy_nonoverlapping(src, lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        if count >= LANES {
            // SAFETY: the contract of this function is that the CPU supports AVX2, FMA and F16C.
            return unsafe { self.store(dst) };
        }
        let mut lanes = [0.0; LANES];
        // SAFETY: the trait requires AVX2 and `dst` to be writable for `count` values; masked lanes are not written.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), dst, count);
        }
    }

    #[inline(always)]
    unsafe fn prefetch_l2(src: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and FMA.
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn load_splat(src: *const f32) -> Self {
        // SAFETY: the trait requires AVX2 and `src` to be readable for one value.
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
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and FMA.
        unsafe {
            Self(
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0),
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and FMA.
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
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and FMA.
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
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and FMA.
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and FMA.
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn reduce_sums(vectors: [Self; 4]) -> [f32; 4] {
        reduce_four!(vectors, _mm256_add_ps, _mm_add_ps)
    }

    #[inline(always)]
    unsafe fn reduce_maxima(vectors: [Self; 4]) -> [f32; 4] {
        reduce_four!(vectors, _mm256_max_ps, _mm_max_ps)
    }
}

/// Shifts every word right by `bits`, or left if negative.
#[inline(always)]
unsafe fn shift_right(word: __m256i, bits: i32) -> __m256i {
    // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
    unsafe {
        match bits {
            0 => word,
            1.. => _mm256_srlv_epi32(word, _mm256_set1_epi32(bits)),
            _ => _mm256_sllv_epi32(word, _mm256_set1_epi32(-bits)),
        }
    }
}

/// Shifts and masks both registers.
#[inline(always)]
unsafe fn shift_and_mask(words: (__m256i, __m256i), bits: i32, mask: i32) -> (__m256i, __m256i) {
    // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
    unsafe {
        let mask = _mm256_set1_epi32(mask);
        (_mm256_and_si256(shift_right(words.0, bits), mask), _mm256_and_si256(shift_right(words.1, bits), mask))
    }
}

impl SimdConvert for Avx2 {
    type U32x16 = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn prefetch_l1(src: *const u8) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16 {
        // SAFETY: the trait requires AVX2 and `src` to be readable for sixteen 32-bit words.
        unsafe { (_mm256_loadu_si256(src.cast()), _mm256_loadu_si256(src.add(32).cast())) }
    }

    #[inline(always)]
    unsafe fn unpack_nibbles<const INDEX: u32>(words: Self::U32x16) -> Self::U32x16 {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
        unsafe { shift_and_mask(words, 4 * INDEX as i32, 0x0f0f_0f0f) }
    }

    #[inline(always)]
    unsafe fn insert_bits<const AT: u32>(low: Self::U32x16, high: Self::U32x16, shift: u32, mask: u32) -> Self::U32x16 {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
        unsafe {
            let (shift, mask) = (_mm_cvtsi32_si128(shift.cast_signed()), _mm256_set1_epi32(mask.cast_signed()));
            let insert = |low, high| {
                let bits = _mm256_and_si256(_mm256_srl_epi32(high, shift), mask);
                _mm256_or_si256(low, shift_right(bits, -(AT as i32)))
            };
            (insert(low.0, high.0), insert(low.1, high.1))
        }
    }

    #[inline(always)]
    unsafe fn u8_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
        unsafe {
            let (low, high) = shift_and_mask(words, 8 * INDEX as i32, 255);
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
        unsafe {
            let (low, high) = shift_and_mask(words, if INDEX == 0 { -16 } else { 0 }, 0xffff_0000_u32 as i32);
            Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: the trait requires AVX2 and `src` to be readable for sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(src.cast());
            let (low, high) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn load_u8(src: *const u8) -> Self {
        // SAFETY: the trait requires AVX2 and `src` to be readable for sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(src.cast());
            let (low, high) = (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u8) -> Self {
        // SAFETY: the trait requires F16C and `src` to be readable for sixteen 16-bit values.
        unsafe {
            let (low, high) = (_mm_loadu_si128(src.cast()), _mm_loadu_si128(src.add(16).cast()));
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::U32x16 {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
        unsafe { (_mm256_set1_epi32(value), _mm256_set1_epi32(value)) }
    }

    #[inline(always)]
    unsafe fn dot_u8_i8(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16 {
        // SAFETY: the trait requires AVX2 and `lhs` to be readable for four bytes.
        unsafe {
            let lhs = _mm256_set1_epi32(lhs.cast::<i32>().read_unaligned());
            (add_dot_u8_i8(sums.0, packed.0, lhs), add_dot_u8_i8(sums.1, packed.1, lhs))
        }
    }

    #[inline(always)]
    unsafe fn dot_u6_i8_pair(sums: Self::U32x16, packed: (Self::U32x16, Self::U32x16), lhs: *const i8) -> Self::U32x16 {
        // SAFETY: the trait requires AVX2 and `lhs` to be readable for eight bytes.
        unsafe {
            let first = _mm256_set1_epi32(lhs.cast::<i32>().read_unaligned());
            let second = _mm256_set1_epi32(lhs.wrapping_add(4).cast::<i32>().read_unaligned());
            let add_dot = |sums, (bytes, next_bytes)| {
                let pairs = _mm256_maddubs_epi16(bytes, first);
                let pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(next_bytes, second));
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
            let (packed, next_packed) = packed;
            (add_dot(sums.0, (packed.0, next_packed.0)), add_dot(sums.1, (packed.1, next_packed.1)))
        }
    }

    #[inline(always)]
    unsafe fn i32_to_f32(words: Self::U32x16) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
        unsafe { Self(_mm256_cvtepi32_ps(words.0), _mm256_cvtepi32_ps(words.1)) }
    }

    #[inline(always)]
    unsafe fn store_i8(self, dst: *mut i8) {
        // SAFETY: the trait requires AVX2 and `dst` to be writable for sixteen bytes.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works within 128-bit lanes; the permutation restores the order.
            let pairs = _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
            _mm_storeu_si128(dst.cast(), bytes);
        }
    }

    #[inline(always)]
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: the trait requires AVX2 and both pointers to be valid for sixteen rows of sixteen values at their
        // strides.
        unsafe {
            transpose_8x8(src, src_stride, dst, dst_stride);
            transpose_8x8(src.add(8), src_stride, dst.add(8 * dst_stride), dst_stride);
            transpose_8x8(src.add(8 * src_stride), src_stride, dst.add(8), dst_stride);
            transpose_8x8(src.add(8 * src_stride + 8), src_stride, dst.add(8 * dst_stride + 8), dst_stride);
        }
    }
}

/// Adds to each word of `sums` the products of its four unsigned bytes with the four signed bytes of `lhs`. The sum of two
/// neighbouring products must fit into 16 bits.
#[inline(always)]
unsafe fn add_dot_u8_i8(sums: __m256i, bytes: __m256i, lhs: __m256i) -> __m256i {
    // SAFETY: only register operations; the trait requires a CPU with AVX2 and F16C.
    unsafe {
        let pairs = _mm256_maddubs_epi16(bytes, lhs);
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// Transposes 8×8 values: halves are exchanged first, then pairs, then neighbours.
#[inline(always)]
unsafe fn transpose_8x8(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
    // SAFETY: `transpose_16x16` passes pointers valid for eight rows of eight values at these strides, on a CPU with
    // AVX2.
    unsafe {
        // Four values of rows r and r + 4, side by side.
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
