//! How a block of each form is read in registers.

use super::forms::{BLOCK, Form};
use crate::cpu::lanes::{LANES, Lanes};

/// A [`Form`] as a type, for kernels that are compiled for it.
///
/// # Safety
/// As [`Lanes`]; `block` points to a whole block of a strip.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Coded: Copy {
    const FORM: Form;
    /// Steps of the depth in what is loaded at once.
    const STEPS: usize;
    /// Cache lines of scales and minima at the beginning of a block.
    const HEADS: usize;
    /// What a panel's block has in common.
    type Head<L: Lanes>: Copy;
    /// What is loaded at once.
    type Words<L: Lanes>: Copy;

    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> Self::Head<L>;
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> Self::Words<L>;
    /// The panel's weights at one step of the words.
    unsafe fn weights<L: Lanes, const STEP: u32>(words: Self::Words<L>, head: Self::Head<L>) -> L;
}

#[derive(Clone, Copy)]
pub struct F16;
#[derive(Clone, Copy)]
pub struct Bf16;
#[derive(Clone, Copy)]
pub struct Q8_0;
#[derive(Clone, Copy)]
pub struct Q4_0;
#[derive(Clone, Copy)]
pub struct Q4_1;
#[derive(Clone, Copy)]
pub struct Wide4;
#[derive(Clone, Copy)]
pub struct Wide8;

/// Bytes of a panel's sixteen halves and words, and of a strip's.
const HALVES: usize = 2 * LANES;
const WORDS: usize = 4 * LANES;

impl Coded for F16 {
    const FORM: Form = Form::F16;
    const HEADS: usize = 0;
    const STEPS: usize = 1;
    type Head<L: Lanes> = ();
    type Words<L: Lanes> = L;

    #[inline(always)]
    unsafe fn head<L: Lanes>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> L {
        // SAFETY: the caller's.
        unsafe { L::halves(block.wrapping_add(group.wrapping_mul(2).wrapping_add(panel).wrapping_mul(HALVES))) }
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes, const STEP: u32>(words: L, (): ()) -> L {
        words
    }
}

/// Where a panel's words lie, behind so many heads of the strip.
#[inline(always)]
fn word<const HEADS: usize>(panel: usize, group: usize) -> usize {
    group.wrapping_mul(2).wrapping_add(panel).wrapping_mul(WORDS).wrapping_add(HEADS * 2 * HALVES)
}

impl Coded for Bf16 {
    const FORM: Form = Form::Bf16;
    const HEADS: usize = 0;
    const STEPS: usize = 2;
    type Head<L: Lanes> = ();
    type Words<L: Lanes> = L::Words;

    #[inline(always)]
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> L::Words {
        // SAFETY: the caller's.
        unsafe { L::words(block.wrapping_add(word::<0>(panel, group))) }
    }

    #[inline(always)]
    unsafe fn head<L: Lanes>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn weights<L: Lanes, const STEP: u32>(words: L::Words, (): ()) -> L {
        // SAFETY: the caller's.
        unsafe { L::brain::<STEP>(words) }
    }
}

impl Coded for Q8_0 {
    const FORM: Form = Form::Q8_0;
    const HEADS: usize = 1;
    const STEPS: usize = 4;
    /// s and −128·s: the weight is s·(q + 128) − 128·s, of so few bits that it is exact.
    type Head<L: Lanes> = (L, L);
    type Words<L: Lanes> = L::Words;

    #[inline(always)]
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> L::Words {
        // SAFETY: the caller's.
        unsafe { L::words(block.wrapping_add(word::<1>(panel, group))) }
    }

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> (L, L) {
        // SAFETY: the caller's.
        unsafe {
            let scale = L::halves(block.wrapping_add(panel.wrapping_mul(HALVES)));
            (scale, scale.times(L::splat(-128.0)))
        }
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes, const STEP: u32>(words: L::Words, (scale, least): (L, L)) -> L {
        // SAFETY: the caller's.
        unsafe { L::byte::<STEP>(words).fused(scale, least) }
    }
}

/// The words and weights of the forms of four bits, at the places that [`Form::place`] tells.
macro_rules! nibbles {
    ($heads:expr) => {
        #[inline(always)]
        unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> (L::Words, L::Words) {
            // SAFETY: the caller's.
            unsafe {
                let words = L::words(block.wrapping_add(word::<$heads>(panel, group)));
                (L::nibbles::<0>(words), L::nibbles::<1>(words))
            }
        }

        #[inline(always)]
        unsafe fn weights<L: Lanes, const STEP: u32>(words: (L::Words, L::Words), (scale, least): (L, L)) -> L {
            // SAFETY: the caller's.
            let number = unsafe {
                match STEP {
                    0 => L::byte::<0>(words.0),
                    1 => L::byte::<1>(words.0),
                    2 => L::byte::<2>(words.0),
                    3 => L::byte::<3>(words.0),
                    4 => L::byte::<0>(words.1),
                    5 => L::byte::<1>(words.1),
                    6 => L::byte::<2>(words.1),
                    _ => L::byte::<3>(words.1),
                }
            };
            // SAFETY: as above.
            unsafe { number.fused(scale, least) }
        }
    };
}

impl Coded for Q4_0 {
    const FORM: Form = Form::Q4_0;
    const HEADS: usize = 1;
    const STEPS: usize = 8;
    /// s and −8·s.
    type Head<L: Lanes> = (L, L);
    type Words<L: Lanes> = (L::Words, L::Words);

    nibbles!(1);

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> (L, L) {
        // SAFETY: the caller's.
        unsafe {
            let scale = L::halves(block.wrapping_add(panel.wrapping_mul(HALVES)));
            (scale, scale.times(L::splat(-8.0)))
        }
    }
}

impl Coded for Q4_1 {
    const FORM: Form = Form::Q4_1;
    const HEADS: usize = 2;
    const STEPS: usize = 8;
    /// s and m.
    type Head<L: Lanes> = (L, L);
    type Words<L: Lanes> = (L::Words, L::Words);

    nibbles!(2);

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> (L, L) {
        let at = block.wrapping_add(panel.wrapping_mul(HALVES));
        // SAFETY: the caller's.
        unsafe { (L::halves(at), L::halves(at.wrapping_add(2 * HALVES))) }
    }
}

impl Coded for Wide4 {
    const FORM: Form = Form::Wide4;
    const HEADS: usize = 4;
    const STEPS: usize = 8;
    /// s and m.
    type Head<L: Lanes> = (L, L);
    type Words<L: Lanes> = (L::Words, L::Words);

    nibbles!(4);

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> (L, L) {
        let at = block.wrapping_add(panel.wrapping_mul(WORDS));
        // SAFETY: the caller's.
        unsafe { (L::load(at.cast()), L::load(at.wrapping_add(2 * WORDS).cast())) }
    }
}

impl Coded for Wide8 {
    const FORM: Form = Form::Wide8;
    const HEADS: usize = 8;
    const STEPS: usize = 4;
    type Head<L: Lanes> = ();
    /// Codes, s and m: each half of a block has its own.
    type Words<L: Lanes> = (L::Words, L, L);

    #[inline(always)]
    unsafe fn head<L: Lanes>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> (L::Words, L, L) {
        let half = group / (BLOCK / 2 / Self::STEPS);
        let at = block.wrapping_add(half.wrapping_mul(2).wrapping_add(panel).wrapping_mul(WORDS));
        // SAFETY: the caller's.
        unsafe {
            let codes = L::words(block.wrapping_add(word::<8>(panel, group)));
            (codes, L::load(at.cast()), L::load(at.wrapping_add(4 * WORDS).cast()))
        }
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes, const STEP: u32>((codes, scale, least): (L::Words, L, L), (): ()) -> L {
        // SAFETY: the caller's.
        unsafe { L::byte::<STEP>(codes).fused(scale, least) }
    }
}
