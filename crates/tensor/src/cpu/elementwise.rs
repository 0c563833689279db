//! Element by element: sums and products. In registers of sixteen, over whole blocks, the numbers to spare
//! at a block's end included.

use super::lanes::{LANES, Lanes, Work, pieces};
use super::memory::{Draft, Matrix};
use std::marker::PhantomData;

/// An operation on pairs of numbers.
///
/// # Safety
/// As [`Lanes`].
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Two {
    unsafe fn of<L: Lanes>(left: L, right: L) -> L;
}

pub struct Add;
pub struct Multiply;

impl Two for Add {
    #[inline(always)]
    unsafe fn of<L: Lanes>(left: L, right: L) -> L {
        // SAFETY: the caller's.
        unsafe { left.plus(right) }
    }
}

impl Two for Multiply {
    #[inline(always)]
    unsafe fn of<L: Lanes>(left: L, right: L) -> L {
        // SAFETY: the caller's.
        unsafe { left.times(right) }
    }
}

/// The operation on every pair.
pub struct Pairs<'a, O> {
    left: &'a Matrix,
    right: &'a Matrix,
    operation: PhantomData<O>,
}

impl<'a, O: Two> Pairs<'a, O> {
    pub fn new(left: &'a Matrix, right: &'a Matrix) -> Self {
        assert_eq!((left.rows(), left.width()), (right.rows(), right.width()), "both sides have one shape");
        Self { left, right, operation: PhantomData }
    }
}

impl<O: Two> Work for Pairs<'_, O> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Matrix {
        let mut draft = Draft::new(self.left.rows(), self.left.width());
        let count = self.left.values().len().next_multiple_of(LANES);
        let left = self.left.spacious()[..count].as_ptr();
        let right = self.right.spacious()[..count].as_ptr();
        let out = draft.spacious()[..count].as_mut_ptr();
        pieces!(count, at, {
            // SAFETY: whole registers up to `count`, which all three hold; the caller's for the rest.
            unsafe {
                let value = O::of(L::load(left.wrapping_add(at)), L::load(right.wrapping_add(at)));
                value.store(out.wrapping_add(at));
            }
        });
        draft.done()
    }
}

pub struct Scaled<'a> {
    pub rows: &'a Matrix,
    pub factor: f32,
}

impl Work for Scaled<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Matrix {
        let mut draft = Draft::new(self.rows.rows(), self.rows.width());
        let count = self.rows.values().len().next_multiple_of(LANES);
        let rows = self.rows.spacious()[..count].as_ptr();
        let out = draft.spacious()[..count].as_mut_ptr();
        pieces!(count, at, {
            // SAFETY: whole registers up to `count`, which both hold; the caller's for the rest.
            unsafe { L::load(rows.wrapping_add(at)).times(L::splat(self.factor)).store(out.wrapping_add(at)) };
        });
        draft.done()
    }
}
