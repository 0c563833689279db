//! Weights widened into a buffer, for products that read them many times.

use super::coded::Coded;
use super::forms::{BLOCK, STRIP};
use super::reading::{Reading, Strip};
use super::weights::Reduced;
use crate::cpu::lanes::{LANES, Lanes, Work};
use crate::cpu::tile::Panels;
use std::marker::PhantomData;

/// Numbers of a strip's block when it is widened.
pub const WIDE: usize = BLOCK * STRIP;

/// Which way a block's numbers lie in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// `(depth, 32 columns)`, as `x·Wᵀ` reads them.
    Columns,
    /// `(32 columns, depth)`, as `dY·W` does.
    Depth,
}

/// Some neighbouring blocks, the first from `block` on, each [`WIDE`] numbers further in the buffer.
pub struct Widen<'a, F> {
    pub weights: &'a Reduced,
    /// The first block's place in the weights, and how far it is from one to the next, in bytes.
    pub start: usize,
    pub step: usize,
    /// How far it is from a block to the one that will be widened at its place the next time, in bytes.
    pub ahead: usize,
    pub along: Along,
    pub out: &'a mut [f32],
    pub form: PhantomData<F>,
}

impl<F: Coded> Work for Widen<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let blocks = self.out.len() / WIDE;
        let bytes = self.weights.bytes();
        let end = self.start + (blocks.max(1) - 1) * self.step + F::FORM.block_bytes();
        assert!(self.weights.form() == F::FORM && end <= bytes.len(), "a weight has these blocks");
        let mut turned = [0.0; WIDE];
        let mut index = 0;
        while index < blocks {
            // SAFETY: the block lies within the weights and its numbers within the buffer, as was just shown; the caller is
            // inside `Level::run`.
            unsafe {
                let block = bytes.as_ptr().add(self.start + index * self.step);
                let out = self.out.as_mut_ptr().add(index * WIDE);
                match self.along {
                    Along::Columns => widen::<L, F>(block, self.ahead, out),
                    Along::Depth => {
                        widen::<L, F>(block, self.ahead, turned.as_mut_ptr());
                        turn::<L>(turned.as_ptr(), out);
                    }
                }
            }
            index += 1;
        }
    }
}

/// # Safety
/// As [`Coded`]; `out` is good for [`WIDE`] numbers.
#[inline(always)]
unsafe fn widen<L: Lanes, F: Coded>(block: *const u8, ahead: usize, out: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        let heads = <Strip as Reading<L, F>>::heads(block, 0);
        let bytes = F::FORM.block_bytes() / (BLOCK / F::STEPS);
        let (mut group, mut out) = (0, out);
        while group < BLOCK / F::STEPS {
            let words = <Strip as Reading<L, F>>::words(block, 0, group);
            // What is asked for now comes while this is multiplied.
            let line = block.wrapping_add(ahead).wrapping_add(group.wrapping_mul(bytes));
            L::fetch(line.cast());
            if bytes > 64 {
                L::fetch(line.wrapping_add(64).cast());
            }
            if bytes >= 192 {
                L::fetch(line.wrapping_add(128).cast());
            }
            macro_rules! step {
                ($($step:literal)+) => {
                    $(if $step < F::STEPS {
                        let weights = <Strip as Reading<L, F>>::weights::<$step>(words, heads);
                        weights.write(out.wrapping_add($step * STRIP), STRIP);
                    })+
                };
            }
            step!(0 1 2 3 4 5 6 7);
            out = out.wrapping_add(F::STEPS * STRIP);
            group = group.wrapping_add(1);
        }
    }
}

/// Rows of a square block become columns.
///
/// # Safety
/// Both are good for [`WIDE`] numbers.
#[inline(always)]
unsafe fn turn<L: Lanes>(from: *const f32, to: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        L::turn(from, STRIP, to, STRIP);
        L::turn(from.add(LANES), STRIP, to.add(LANES * STRIP), STRIP);
        L::turn(from.add(LANES * STRIP), STRIP, to.add(LANES), STRIP);
        L::turn(from.add(LANES * STRIP + LANES), STRIP, to.add(LANES * STRIP + LANES), STRIP);
    }
}

const _: () = assert!(BLOCK == STRIP, "a block is a square");
