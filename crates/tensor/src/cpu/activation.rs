//! Functions of single numbers with their derivatives, in registers of sixteen.

use super::lanes::{LANES, Lanes, Work, exp, pieces};
use super::memory::{Draft, Matrix};
use std::marker::PhantomData;

/// A function of single numbers.
///
/// # Safety
/// As [`Lanes`].
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Curve {
    /// Value and derivative.
    unsafe fn of<L: Lanes>(x: L) -> (L, L);
}

pub struct Gelu;
pub struct GeluTanh;
pub struct Relu;
pub struct Silu;

impl Curve for Relu {
    #[inline(always)]
    unsafe fn of<L: Lanes>(x: L) -> (L, L) {
        // SAFETY: the caller's. 0 has the derivative 0: −x is not below zero there.
        unsafe {
            let (zero, one) = (L::splat(0.0), L::splat(1.0));
            (x.max(zero), zero.minus(x).where_negative(one, zero))
        }
    }
}

impl Curve for Silu {
    #[inline(always)]
    unsafe fn of<L: Lanes>(x: L) -> (L, L) {
        // SAFETY: the caller's.
        unsafe {
            let one = L::splat(1.0);
            // σ(|x|), and σ(−|x|) = 1 − σ(|x|) from it
            let magnitude = x.max(L::splat(0.0).minus(x));
            let bell = exp(L::splat(0.0).minus(magnitude));
            let above = one.over(one.plus(bell));
            let sigmoid = x.where_negative(bell.times(above), above);
            let value = x.times(sigmoid);
            // σ + x·σ·(1 − σ)
            (value, value.fused(one.minus(sigmoid), sigmoid))
        }
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    unsafe fn of<L: Lanes>(x: L) -> (L, L) {
        // SAFETY: the caller's.
        unsafe {
            // ½·(1 + tanh(u)) = σ(2u), with 2u = x·(s + s·0.044715·x²), s = 2·√(2/π)
            let one = L::splat(1.0);
            let square = x.times(x);
            let twice = x.times(square.fused(L::splat(0.071_354_814), L::splat(1.595_769)));
            let slope = square.fused(L::splat(3.0 * 0.071_354_814), L::splat(1.595_769));
            let magnitude = twice.max(L::splat(0.0).minus(twice));
            let bell = exp(L::splat(0.0).minus(magnitude));
            let above = one.over(one.plus(bell));
            let below = bell.times(above);
            let sigmoid = twice.where_negative(below, above);
            // σ + x·σ·(1 − σ)·(2u)′
            (x.times(sigmoid), x.times(slope).fused(above.times(below), sigmoid))
        }
    }
}

impl Curve for Gelu {
    #[inline(always)]
    unsafe fn of<L: Lanes>(x: L) -> (L, L) {
        // SAFETY: the caller's.
        unsafe { gelu(x) }
    }
}

pub struct Activate<'a, C> {
    pub input: &'a Matrix,
    /// As large as the input; where a backward pass will need it.
    pub derivative: Option<&'a mut Draft>,
    pub curve: PhantomData<C>,
}

impl<C: Curve> Work for Activate<'_, C> {
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
                let (value, derivative) = C::of::<L>(L::load(input.wrapping_add(at)));
                value.store(out.wrapping_add(at));
                if let Some(derivatives) = derivatives {
                    derivative.store(derivatives.wrapping_add(at));
                }
            }
        });
        draft.done()
    }
}

/// Number by number, as the standard library computes it: for what few rows pass through.
pub fn tanh(input: &Matrix, derivative: Option<&mut Draft>) -> Matrix {
    let mut draft = Draft::new(input.rows(), input.width());
    draft.values().iter_mut().zip(input.values()).for_each(|(to, from)| *to = from.tanh());
    if let Some(derivative) = derivative {
        derivative.values().iter_mut().zip(draft.values()).for_each(|(to, y)| *to = 1.0 - *y * *y);
    }
    draft.done()
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
