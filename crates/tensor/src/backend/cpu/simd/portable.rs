//! Portable implementation: an array of lanes. It is the reference that the other instruction sets are tested against.
//! On 64-bit ARM it compiles to NEON.

use super::{LANES, Simd, SimdConvert};
use half::f16;

/// Without the instruction a fused multiply-add is a slow library call.
const HAS_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

#[derive(Clone, Copy)]
pub struct Portable(pub [f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip_map(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn reduce(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = self.0;
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] = f(lanes[lane], lanes[lane + half]);
            }
            half /= 2;
        }
        lanes[0]
    }
}

impl Simd for Portable {
    const TILE_ROWS: usize = 4;
    const TILE_PANELS: usize = 1;
    const INT8_TILE_ROWS: usize = 1;

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the trait requires `src` to be readable for sixteen values; `read_unaligned` needs no alignment.
        Self(unsafe { src.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: the trait requires `dst` to be writable for sixteen values; `write_unaligned` needs no alignment.
        unsafe { dst.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: the trait requires `src` to be readable for `count` values, and at most sixteen are read.
        unsafe { std::ptr::copy_nonoverlapping(src, lanes.as_mut_ptr(), count.min(LANES)) };
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        // SAFETY: the trait requires `dst` to be writable for `count` values, and at most sixteen are written.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), dst, count.min(LANES)) };
    }

    #[inline(always)]
    unsafe fn prefetch_l2(_: *const f32) {}

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load_splat(src: *const f32) -> Self {
        // SAFETY: the trait requires `src` to be readable for one value.
        Self([unsafe { src.read_unaligned() }; LANES])
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|lane| match HAS_FMA {
            true => self.0[lane].mul_add(factor.0[lane], addend.0[lane]),
            false => self.0[lane] * factor.0[lane] + addend.0[lane],
        }))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip_map(other, |one, other| one + other)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip_map(other, |one, other| one - other)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip_map(other, |one, other| one * other)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip_map(other, |one, other| one / other)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // The second operand if either is NaN, as on x86.
        self.zip_map(other, |one, other| if one > other { one } else { other })
    }

    #[inline(always)]
    unsafe fn round_ties_even(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        Self(self.0.map(|exponent| f32::from_bits(((exponent as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    unsafe fn select_negative(self, if_negative: Self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] < 0.0 { if_negative.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn reduce_sum(self) -> f32 {
        self.reduce(|one, other| one + other)
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        self.reduce(|one, other| if one > other { one } else { other })
    }

    #[inline(always)]
    unsafe fn reduce_sums(vectors: [Self; 4]) -> [f32; 4] {
        // SAFETY: the same contract.
        vectors.map(|vector| unsafe { vector.reduce_sum() })
    }

    #[inline(always)]
    unsafe fn reduce_maxima(vectors: [Self; 4]) -> [f32; 4] {
        // SAFETY: the same contract.
        vectors.map(|vector| unsafe { vector.reduce_max() })
    }
}

impl SimdConvert for Portable {
    type U32x16 = [u32; LANES];

    #[inline(always)]
    unsafe fn prefetch_l1(_: *const u8) {}

    #[inline(always)]
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16 {
        // SAFETY: the trait requires `src` to be readable for sixteen 32-bit words.
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
    unsafe fn insert_bits<const AT: u32>(low: Self::U32x16, high: Self::U32x16, shift: u32, mask: u32) -> Self::U32x16 {
        std::array::from_fn(|lane| low[lane] | (high[lane] >> shift & mask) << AT)
    }

    #[inline(always)]
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self {
        Self(words.map(|word| f32::from_bits((word >> (16 * INDEX)) << 16)))
    }

    #[inline(always)]
    unsafe fn load_i8(src: *const i8) -> Self {
        // SAFETY: the trait requires `src` to be readable for sixteen bytes.
        Self(unsafe { src.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_u8(src: *const u8) -> Self {
        // SAFETY: the trait requires `src` to be readable for sixteen bytes.
        Self(unsafe { src.cast::<[u8; LANES]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u8) -> Self {
        // SAFETY: the trait requires `src` to be readable for sixteen 16-bit values.
        let bits = unsafe { src.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(|bits| f16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::U32x16 {
        [value.cast_unsigned(); LANES]
    }

    #[inline(always)]
    unsafe fn dot_u8_i8(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16 {
        // SAFETY: the trait requires `lhs` to be readable for four bytes.
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
        // SAFETY: the trait requires `dst` to be writable for sixteen bytes.
        unsafe { dst.cast::<[i8; LANES]>().write_unaligned(self.0.map(|number| number as i8)) }
    }

    #[inline(always)]
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        for row in 0..LANES {
            for column in 0..LANES {
                // SAFETY: the trait requires both pointers to be valid for sixteen rows of sixteen values at their
                // strides.
                unsafe { dst.add(column * dst_stride + row).write(src.add(row * src_stride + column).read()) };
            }
        }
    }
}
