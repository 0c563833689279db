//! AVX-512 implementation: sixteen lanes in one register. Reductions are AVX2's, so both give the same bits.

use super::avx2::Avx2;
use super::{LANES, Simd, SimdConvert, SimdKernel};
use std::arch::x86_64::*;

/// # Safety
/// The CPU supports AVX-512 F, BW and DQ, and so AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx2,fma,f16c")]
pub unsafe fn run<W: SimdKernel>(kernel: W) -> W::Output {
    // SAFETY: the contract of this function is that the CPU supports the instruction sets named above.
    unsafe { kernel.run::<Avx512>() }
}

/// # Safety
/// The CPU supports AVX-512 F, BW, DQ and VNNI, and so AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn run_int8_dot<W: SimdKernel>(kernel: W) -> W::Output {
    // SAFETY: the contract of this function is that the CPU supports the instruction sets named above.
    unsafe { kernel.run::<Avx512>() }
}

#[derive(Clone, Copy)]
pub struct Avx512(pub __m512);

impl Avx512 {
    #[inline(always)]
    unsafe fn split_into_avx2(self) -> Avx2 {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe { Avx2(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) }
    }
}

#[inline(always)]
fn tail_mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// Applies an intrinsic to all sixteen lanes.
macro_rules! one_register {
    ($operation:ident, $($operand:expr),+) => {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe { Avx512($operation($($operand.0),+)) }
    };
}

impl Simd for Avx512 {
    const TILE_ROWS: usize = 12;
    const TILE_PANELS: usize = 2;
    const INT8_TILE_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the trait requires AVX-512 and `src` to be readable for sixteen values.
        Self(unsafe { _mm512_loadu_ps(src) })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: the trait requires AVX-512 and `dst` to be writable for sixteen values.
        unsafe { _mm512_storeu_ps(dst, self.0) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        // SAFETY: the trait requires `src` to be readable for `count` values, and masked lanes are not read.
        Self(unsafe { _mm512_maskz_loadu_ps(tail_mask(count), src) })
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        // SAFETY: the trait requires `dst` to be writable for `count` values, and masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(dst, tail_mask(count), self.0) }
    }

    #[inline(always)]
    unsafe fn prefetch_l2(src: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load_splat(src: *const f32) -> Self {
        // SAFETY: the trait requires AVX-512 and `src` to be readable for one value.
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
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn select_negative(self, if_negative: Self, other: Self) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            Self(_mm512_mask_blend_ps(mask, other.0, if_negative.0))
        }
    }

    #[inline(always)]
    unsafe fn reduce_sum(self) -> f32 {
        // SAFETY: every CPU with AVX-512 has AVX2.
        unsafe { self.split_into_avx2().reduce_sum() }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        // SAFETY: every CPU with AVX-512 has AVX2.
        unsafe { self.split_into_avx2().reduce_max() }
    }

    #[inline(always)]
    unsafe fn reduce_sums([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: only register operations; every CPU with AVX-512 has AVX2.
        unsafe {
            let halves = (a.split_into_avx2(), b.split_into_avx2(), c.split_into_avx2(), d.split_into_avx2());
            Avx2::reduce_sums([halves.0, halves.1, halves.2, halves.3])
        }
    }

    #[inline(always)]
    unsafe fn reduce_maxima([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: only register operations; every CPU with AVX-512 has AVX2.
        unsafe {
            let halves = (a.split_into_avx2(), b.split_into_avx2(), c.split_into_avx2(), d.split_into_avx2());
            Avx2::reduce_maxima([halves.0, halves.1, halves.2, halves.3])
        }
    }
}

/// Shifts every word right by `bits`, or left if negative.
#[inline(always)]
unsafe fn shift_right(word: __m512i, bits: i32) -> __m512i {
    // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
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
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(src.cast()) }
    }

    #[inline(always)]
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16 {
        // SAFETY: the trait requires AVX-512 and `src` to be readable for sixteen 32-bit words.
        unsafe { _mm512_loadu_si512(src.cast()) }
    }

    #[inline(always)]
    unsafe fn unpack_nibbles<const INDEX: u32>(words: Self::U32x16) -> Self::U32x16 {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe { _mm512_and_si512(shift_right(words, 4 * INDEX as i32), _mm512_set1_epi32(0x0f0f_0f0f)) }
    }

    #[inline(always)]
    unsafe fn insert_bits<const AT: u32>(low: Self::U32x16, high: Self::U32x16, shift: u32, mask: u32) -> Self::U32x16 {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe {
            let bits = _mm512_srl_epi32(high, _mm_cvtsi32_si128(shift.cast_signed()));
            let bits = _mm512_and_si512(bits, _mm512_set1_epi32(mask.cast_signed()));
            _mm512_or_si512(low, shift_right(bits, -(AT as i32)))
        }
    }

    /// Shuffles and conversions run on other ports than the multiply-adds; shifts and masks would compete with them.
    #[inline(always)]
    unsafe fn u8_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe {
            // An index with the upper bit set yields 0.
            let (zero, index) = (0x8080_8000_u32 as i32, INDEX as i32);
            let shuffle_indices =
                _mm512_setr4_epi32(zero | index, zero | (4 + index), zero | (8 + index), zero | (12 + index));
            Self(_mm512_cvtepi32_ps(_mm512_shuffle_epi8(words, shuffle_indices)))
        }
    }

    #[inline(always)]
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe {
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let upper = shift_right(words, if INDEX == 0 { -16 } else { 0 });
            Self(_mm512_castsi512_ps(_mm512_and_si512(upper, mask)))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: the trait requires AVX-512 and `src` to be readable for sixteen bytes.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(src.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_u8(src: *const u8) -> Self {
        // SAFETY: the trait requires AVX-512 and `src` to be readable for sixteen bytes.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(src.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u8) -> Self {
        // SAFETY: the trait requires AVX-512 and `src` to be readable for sixteen 16-bit values.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(src.cast()))) }
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::U32x16 {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn dot_u8_i8(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16 {
        // SAFETY: `Isa::run_int8_dot` selects this only on CPUs with VNNI, and the trait requires `lhs` to be readable
        // for four bytes.
        unsafe { _mm512_dpbusd_epi32(sums, packed, _mm512_set1_epi32(lhs.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn i32_to_f32(words: Self::U32x16) -> Self {
        // SAFETY: only register operations; the trait requires a CPU with AVX-512 F, BW and DQ.
        Self(unsafe { _mm512_cvtepi32_ps(words) })
    }

    #[inline(always)]
    unsafe fn store_i8(self, dst: *mut i8) {
        // SAFETY: the trait requires AVX-512 and `dst` to be writable for sixteen bytes.
        unsafe { _mm_storeu_si128(dst.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }

    #[inline(always)]
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: every CPU with AVX-512 has AVX2, and the pointers keep the same contract.
        unsafe { Avx2::transpose_16x16(src, src_stride, dst, dst_stride) }
    }
}
