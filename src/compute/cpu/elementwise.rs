//! Element by element: sums, products, activations. In registers of sixteen, over whole blocks, the numbers to spare
//! at a block's end included.

use super::lanes::{LANES, Lanes, Work, exp};
use super::memory::{Draft, Matrix};

/// `f(left, right)` of every pair.
pub struct Pairs<'a> {
    pub operation: Pair,
    pub left: &'a Matrix,
    pub right: &'a Matrix,
}

#[derive(Clone, Copy)]
pub enum Pair {
    Add,
    Multiply,
    /// left·(1 − right²): the gradient through a tanh whose output is on the right.
    ThroughTanh,
}

impl Work for Pairs<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Matrix {
        // SAFETY: the caller's.
        unsafe {
            match self.operation {
                Pair::Add => zip::<L>(self.left, self.right, |left, right| left.plus(right)),
                Pair::Multiply => zip::<L>(self.left, self.right, |left, right| left.times(right)),
                Pair::ThroughTanh => zip::<L>(self.left, self.right, |left, right| {
                    let one = L::splat(1.0);
                    left.times(one.minus(right.times(right)))
                }),
            }
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn zip<L: Lanes>(left: &Matrix, right: &Matrix, f: impl Fn(L, L) -> L) -> Matrix {
    assert_eq!((left.rows(), left.width()), (right.rows(), right.width()), "both sides have one shape");
    let mut draft = Draft::new(left.rows(), left.width());
    let out = draft.spacious();
    let (left_values, right_values) = (left.spacious(), right.spacious());
    for start in (0..left.values().len()).step_by(LANES) {
        let [left, right, out] =
            [&left_values[start..start + LANES], &right_values[start..start + LANES], &out[start..start + LANES]];
        // SAFETY: each slice is sixteen long; the caller's for the rest.
        unsafe { f(L::load(left.as_ptr()), L::load(right.as_ptr())).store(out.as_ptr().cast_mut()) };
    }
    draft.done()
}

pub struct Scaled<'a> {
    pub rows: &'a Matrix,
    pub factor: f32,
}

impl Work for Scaled<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Matrix {
        // SAFETY: the caller's.
        unsafe {
            let factor = L::splat(self.factor);
            let mut draft = Draft::new(self.rows.rows(), self.rows.width());
            map::<L>(self.rows, draft.spacious(), |value| value.times(factor));
            draft.done()
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn map<L: Lanes>(rows: &Matrix, out: &mut [f32], mut f: impl FnMut(L) -> L) {
    let values = rows.spacious();
    for start in (0..rows.values().len()).step_by(LANES) {
        let (value, out) = (&values[start..start + LANES], &mut out[start..start + LANES]);
        // SAFETY: each slice is sixteen long; the caller's for the rest.
        unsafe { f(L::load(value.as_ptr())).store(out.as_mut_ptr()) };
    }
}

/// x·Φ(x), and its derivative Φ(x) + x·φ(x) where a backward pass will need it.
pub struct Gelu<'a> {
    pub input: &'a Matrix,
    pub derivative: Option<&'a mut Draft>,
}

impl Work for Gelu<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Matrix {
        let mut draft = Draft::new(self.input.rows(), self.input.width());
        // SAFETY: the caller's.
        unsafe {
            match self.derivative {
                None => map::<L>(self.input, draft.spacious(), |x| gelu::<L>(x).0),
                Some(derivative) => {
                    let derivatives = derivative.spacious();
                    let mut start = 0;
                    map::<L>(self.input, draft.spacious(), |x| {
                        let (y, derivative) = gelu::<L>(x);
                        derivative.store(derivatives[start..start + LANES].as_mut_ptr());
                        start += LANES;
                        y
                    });
                }
            }
        }
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
    const COEFFICIENTS: [f32; 5] = [0.709_149_4, -0.370_911_3, 0.468_276_86, 0.161_822_5, 0.231_922_26];
    // SAFETY: the caller's.
    unsafe {
        let magnitude = x.max(L::splat(0.0).minus(x));
        let t = L::splat(1.0).over(magnitude.fused(L::splat(0.4 * std::f32::consts::FRAC_1_SQRT_2), L::splat(1.0)));
        let bell = exp(x.times(x).times(L::splat(-0.5)));
        let mut sum = L::splat(-0.200_259_76);
        for coefficient in COEFFICIENTS {
            sum = sum.fused(t, L::splat(coefficient));
        }
        let tail = sum.times(t).times(bell).times(L::splat(0.5));
        let cumulative = x.where_negative(tail, L::splat(1.0).minus(tail));
        // φ(x) = exp(−x²/2)/√2π
        let density = bell.times(L::splat(0.398_942_3));
        (x.times(cumulative), x.fused(density, cumulative))
    }
}
