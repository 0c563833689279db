//! Which panels are widened at once, as types: those of one strip, or of neighbouring strips.
//!
//! As tiles are ([`crate::cpu::tile`]), and for the same reason.

use super::coded::Coded;
use crate::cpu::lanes::Lanes;
use crate::cpu::tile::{Panel, Panels, Twice};

/// Neighbouring strips' panels at one step of the depth.
///
/// # Safety
/// As [`Coded`]; `step` is from one strip to the next, in bytes.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Reading<L: Lanes, F: Coded> {
    const STRIPS: usize;
    type Panels: Panels<L>;
    type Heads: Copy;
    type Words: Copy;

    unsafe fn heads(block: *const u8, step: usize) -> Self::Heads;
    unsafe fn words(block: *const u8, step: usize, group: usize) -> Self::Words;
    unsafe fn weights<const STEP: u32>(words: Self::Words, heads: Self::Heads) -> Self::Panels;
    /// Asks for the cache line there.
    unsafe fn fetch(at: *const u8, step: usize);
}

pub struct Strip;

/// The two panels of a strip.
impl<L: Lanes, F: Coded> Reading<L, F> for Strip {
    const STRIPS: usize = 1;
    type Panels = Twice<Panel<L>>;
    type Heads = (F::Head<L>, F::Head<L>);
    type Words = (F::Words<L>, F::Words<L>);

    #[inline(always)]
    unsafe fn heads(block: *const u8, _: usize) -> Self::Heads {
        // SAFETY: the caller's.
        unsafe { (F::head::<L>(block, 0), F::head::<L>(block, 1)) }
    }

    #[inline(always)]
    unsafe fn words(block: *const u8, _: usize, group: usize) -> Self::Words {
        // SAFETY: the caller's.
        unsafe { (F::words::<L>(block, 0, group), F::words::<L>(block, 1, group)) }
    }

    #[inline(always)]
    unsafe fn weights<const STEP: u32>(words: Self::Words, heads: Self::Heads) -> Self::Panels {
        // SAFETY: the caller's.
        unsafe {
            let first = F::weights::<L, STEP>(words.0, heads.0);
            Twice(Panel(first), Panel(F::weights::<L, STEP>(words.1, heads.1)))
        }
    }

    #[inline(always)]
    unsafe fn fetch(at: *const u8, _: usize) {
        // SAFETY: the caller's.
        unsafe { L::fetch_close(at) }
    }
}

pub struct Double<R>(R);

impl<L: Lanes, F: Coded, R: Reading<L, F>> Reading<L, F> for Double<R> {
    const STRIPS: usize = 2 * R::STRIPS;
    type Panels = Twice<R::Panels>;
    type Heads = (R::Heads, R::Heads);
    type Words = (R::Words, R::Words);

    #[inline(always)]
    unsafe fn heads(block: *const u8, step: usize) -> Self::Heads {
        let next = block.wrapping_add(R::STRIPS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe { (R::heads(block, step), R::heads(next, step)) }
    }

    #[inline(always)]
    unsafe fn words(block: *const u8, step: usize, group: usize) -> Self::Words {
        let next = block.wrapping_add(R::STRIPS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe { (R::words(block, step, group), R::words(next, step, group)) }
    }

    #[inline(always)]
    unsafe fn weights<const STEP: u32>(words: Self::Words, heads: Self::Heads) -> Self::Panels {
        // SAFETY: the caller's.
        unsafe { Twice(R::weights::<STEP>(words.0, heads.0), R::weights::<STEP>(words.1, heads.1)) }
    }

    #[inline(always)]
    unsafe fn fetch(at: *const u8, step: usize) {
        // SAFETY: the caller's.
        unsafe {
            R::fetch(at, step);
            R::fetch(at.wrapping_add(R::STRIPS.wrapping_mul(step)), step);
        }
    }
}
