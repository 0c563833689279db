//! Widening as plain loops.

use super::Narrow;
use crate::cpu::lanes::LANES;
use crate::cpu::lanes::portable::Portable;
use half::f16;

impl Narrow for Portable {
    type Words = [u32; LANES];

    #[inline(always)]
    unsafe fn fetch_close(_: *const u8) {}

    #[inline(always)]
    unsafe fn words(from: *const u8) -> Self::Words {
        // SAFETY: the caller's pointer is good for sixteen words.
        unsafe { from.cast::<[u32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn byte<const INDEX: u32>(words: Self::Words) -> Self {
        Self(words.map(|word| ((word >> (8 * INDEX)) & 255) as f32))
    }

    #[inline(always)]
    unsafe fn nibbles<const INDEX: u32>(words: Self::Words) -> Self::Words {
        words.map(|word| (word >> (4 * INDEX)) & 0x0f0f_0f0f)
    }

    #[inline(always)]
    unsafe fn brain<const INDEX: u32>(words: Self::Words) -> Self {
        Self(words.map(|word| f32::from_bits((word >> (16 * INDEX)) << 16)))
    }

    #[inline(always)]
    unsafe fn signed_bytes(from: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        Self(unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn halves(from: *const u8) -> Self {
        // SAFETY: the caller's pointer is good for sixteen halves.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(|bits| f16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    unsafe fn whole(number: i32) -> Self::Words {
        [number.cast_unsigned(); LANES]
    }

    #[inline(always)]
    unsafe fn dots<const BITS: u32>(sums: Self::Words, bytes: Self::Words, left: *const i8) -> Self::Words {
        // SAFETY: the caller's pointer is good for four bytes.
        let left = unsafe { left.cast::<[i8; 4]>().read_unaligned() };
        let mut sums = sums;
        for (sum, bytes) in sums.iter_mut().zip(bytes) {
            for (byte, left) in bytes.to_le_bytes().into_iter().zip(left) {
                *sum = sum.wrapping_add((i32::from(byte) * i32::from(left)).cast_unsigned());
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn numbers(words: Self::Words) -> Self {
        Self(words.map(|word| word.cast_signed() as f32))
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(self.0.map(|number| number as i8)) }
    }

    #[inline(always)]
    unsafe fn turn(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for row in 0..LANES {
            for column in 0..LANES {
                // SAFETY: the caller's pointers are good for sixteen rows.
                unsafe { to.add(column * to_step + row).write(from.add(row * from_step + column).read()) };
            }
        }
    }
}
