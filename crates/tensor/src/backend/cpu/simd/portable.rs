//! Lanes as an array: what every machine can do, and the twin that the others are compared with. On ARM it compiles to
//! NEON, which is part of every 64-bit ARM machine.

use super::{LANES, Simd};

/// Elsewhere a fused multiply-add without the instruction is a slow function call.
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

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for sixteen numbers.
        Self(unsafe { src.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        // SAFETY: as above.
        unsafe { dst.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's pointer is good for `count` numbers, and `count` is at most sixteen.
        unsafe { std::ptr::copy_nonoverlapping(src, lanes.as_mut_ptr(), count.min(LANES)) };
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        // SAFETY: as above.
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
        // SAFETY: the caller's pointer is good for a number.
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
        // as x86 does: the second where either is no number
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
}
