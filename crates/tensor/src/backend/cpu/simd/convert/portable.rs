//! Widening as plain loops.

use super::SimdConvert;
use crate::backend::cpu::simd::LANES;
use crate::backend::cpu::simd::portable::Portable;
use half::f16;

impl SimdConvert for Portable {
    type U32x16 = [u32; LANES];

    #[inline(always)]
    unsafe fn prefetch_l1(_: *const u8) {}

    #[inline(always)]
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16 {
        // SAFETY: the caller's pointer is good for sixteen words.
        unsafe { src.cast::<[u32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn u8_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        Self(words.map(|word| ((word >> (8 * INDEX)) & 255) as f32))
    }

    #[inline(always)]
    unsafe fn unpack_nibbles<const INDEX: u32>(words: Self::U32x16) -> Self::U32x16 {
        words.map(|word| (word >> (4 * INDEX)) & 0x0f0f_0f0f)
    }

    #[inline(always)]
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        Self(words.map(|word| f32::from_bits((word >> (16 * INDEX)) << 16)))
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        Self(unsafe { src.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen halves.
        let bits = unsafe { src.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(|bits| f16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::U32x16 {
        [value.cast_unsigned(); LANES]
    }

    #[inline(always)]
    unsafe fn dot_u8_i8<const BITS: u32>(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16 {
        // SAFETY: the caller's pointer is good for four bytes.
        let lhs = unsafe { lhs.cast::<[i8; 4]>().read_unaligned() };
        let mut sums = sums;
        for (sum, bytes) in sums.iter_mut().zip(packed) {
            for (byte, left) in bytes.to_le_bytes().into_iter().zip(lhs) {
                *sum = sum.wrapping_add((i32::from(byte) * i32::from(left)).cast_unsigned());
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn i32_to_f32(words: Self::U32x16) -> Self {
        Self(words.map(|word| word.cast_signed() as f32))
    }

    #[inline(always)]
    unsafe fn store_i8(self, dst: *mut i8) {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { dst.cast::<[i8; LANES]>().write_unaligned(self.0.map(|number| number as i8)) }
    }

    #[inline(always)]
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        for row in 0..LANES {
            for column in 0..LANES {
                // SAFETY: the caller's pointers are good for sixteen rows.
                unsafe { dst.add(column * dst_stride + row).write(src.add(row * src_stride + column).read()) };
            }
        }
    }
}
