//! Element by element: sums, products, activations. In registers of sixteen, over whole blocks, the numbers to spare
//! at a block's end included.

use super::lanes::{LANES, Lanes, Work, exp, pieces};
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
/// left·(1 − right²): the gradient through a tanh whose output is on the right.
pub struct ThroughTanh;

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

impl Two for ThroughTanh {
    #[inline(always)]
    unsafe fn of<L: Lanes>(left: L, right: L) -> L {
        // SAFETY: the caller's.
        unsafe { left.times(L::splat(1.0).minus(right.times(right))) }
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

/// x·Φ(x), and its derivative Φ(x) + x·φ(x) where a backward pass will need it.
pub struct Gelu<'a> {
    pub input: &'a Matrix,
    /// As large as the input.
    pub derivative: Option<&'a mut Draft>,
}

impl Work for Gelu<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Matrix {
        let mut draft = Draft::new(self.input.rows(), self.input.width());
        let count = self.input.values().len().next_multiple_of(LANES);
        let input = self.input.spacious()[..count].as_ptr();
        let out = draft.spacious()[..count].as_mut_ptr();
        let derivatives = self.derivative.map(|draft| draft.spacious()[..count].as_mut_ptr());
        pieces!(count, at, {
            // SAFETY: whole registers up to `count`, which all hold; the caller's for the rest.
            unsafe {
                let (value, derivative) = gelu::<L>(L::load(input.wrapping_add(at)));
                value.store(out.wrapping_add(at));
                if let Some(derivatives) = derivatives {
                    derivative.store(derivatives.wrapping_add(at));
                }
            }
        });
        draft.done()
    }
}

/// Value and derivative. With z = |x|/√2 and t = 1/(1 + 0.4·z), Φ(−|x|) = ½·erfc(z) = ½·exp(−z²)·p(t), as in Hastings
/// (1955); the coefficients of p were fitted for an error of erfc below 3e-8 (least squares, reweighted to minimax).
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn gelu<L: Lanes>(x: L) -> (L, L) {
    // SAFETY: the caller's.
    unsafe {
        let magnitude = x.max(L::splat(0.0).minus(x));
        let t = L::splat(1.0).over(magnitude.fused(L::splat(0.4 * std::f32::consts::FRAC_1_SQRT_2), L::splat(1.0)));
        let bell = exp(x.times(x).times(L::splat(-0.5)));
        let sum = L::splat(-0.200_259_76).fused(t, L::splat(0.709_149_4)).fused(t, L::splat(-0.370_911_3));
        let sum = sum.fused(t, L::splat(0.468_276_86)).fused(t, L::splat(0.161_822_5)).fused(t, L::splat(0.231_922_26));
        let tail = sum.times(t).times(bell).times(L::splat(0.5));
        let cumulative = x.where_negative(tail, L::splat(1.0).minus(tail));
        // φ(x) = exp(−x²/2)/√2π
        let density = bell.times(L::splat(0.398_942_3));
        (x.times(cumulative), x.fused(density, cumulative))
    }
}
