//! Lanes as an array: what every machine can do, and the twin that the others are compared with. On ARM it compiles to
//! NEON, which is part of every 64-bit ARM machine.

use super::{LANES, Lanes};

/// Elsewhere a fused multiply-add without the instruction is a slow function call.
const IS_FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

#[derive(Clone, Copy)]
pub struct Portable(pub [f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn fold(self, f: impl Fn(f32, f32) -> f32) -> f32 {
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

impl Lanes for Portable {
    const TILE_ROWS: usize = 4;
    const TILE_WIDTH: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for sixteen numbers.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's pointer is good for `count` numbers, and `count` is at most sixteen.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(LANES)) };
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, count.min(LANES)) };
    }

    #[inline(always)]
    unsafe fn fetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn splat_from(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for a number.
        Self([unsafe { from.read_unaligned() }; LANES])
    }

    #[inline(always)]
    unsafe fn fused(self, by: Self, plus: Self) -> Self {
        Self(std::array::from_fn(|lane| match IS_FUSED {
            true => self.0[lane].mul_add(by.0[lane], plus.0[lane]),
            false => self.0[lane] * by.0[lane] + plus.0[lane],
        }))
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        self.zip(other, |one, other| one + other)
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        self.zip(other, |one, other| one - other)
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        self.zip(other, |one, other| one * other)
    }

    #[inline(always)]
    unsafe fn over(self, other: Self) -> Self {
        self.zip(other, |one, other| one / other)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // as x86 does: the second where either is no number
        self.zip(other, |one, other| if one > other { one } else { other })
    }

    #[inline(always)]
    unsafe fn rounded(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(self.0.map(|whole| f32::from_bits(((whole as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    unsafe fn where_negative(self, negative: Self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] < 0.0 { negative.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self.fold(|one, other| one + other)
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.fold(|one, other| if one > other { one } else { other })
    }
}
