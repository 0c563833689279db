//! Norms of rows, or of the sum of two rows: a sublayer's output and its residual.

use super::lanes::{LANES, Lanes, Work, pieces};
use super::memory::{Draft, Matrix};
use crate::kernels::NormForm;

/// What a backward pass needs.
pub struct Kept {
    /// `(rows, width)`
    pub normalised: Draft,
    /// `(rows, 1)`: one over the standard deviation
    pub inverse: Draft,
}

pub struct Norm<'a> {
    pub form: NormForm,
    pub input: &'a Matrix,
    pub residual: Option<&'a Matrix>,
    pub gain: &'a Matrix,
    pub shift: &'a Matrix,
    pub epsilon: f32,
    pub keep: Option<&'a mut Kept>,
}

impl Work for Norm<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) -> Matrix {
        let (rows, width) = (self.input.rows(), self.input.width());
        let fits = |residual: &Matrix| (residual.rows(), residual.width()) == (rows, width);
        assert!(self.residual.is_none_or(fits), "a residual has the input's shape");
        let (gain, shift) = (self.gain.values()[..width].as_ptr(), self.shift.values()[..width].as_ptr());
        let mut draft = Draft::new(rows, width);
        let mut sum = Draft::new(1, width);
        for row in 0..rows {
            let out = draft.values()[row * width..(row + 1) * width].as_mut_ptr();
            let input = self.input.row(row).as_ptr();
            // SAFETY: each pointer has `width` numbers, and `count` of them are left; the caller's for the rest.
            unsafe {
                let input = match self.residual {
                    None => input,
                    Some(residual) => add::<L>(input, residual.row(row).as_ptr(), sum.values()),
                };
                let (mean, inverse) = moments::<L>(self.form, input, width, self.epsilon);
                let (mean, factor) = (L::splat(mean), L::splat(inverse));
                let normalised = self.keep.as_mut().map(|kept| {
                    kept.inverse.values()[row] = inverse;
                    kept.normalised.values()[row * width..(row + 1) * width].as_mut_ptr()
                });
                pieces!(width, start, count, {
                    let value = L::load_some(input.wrapping_add(start), count).minus(mean).times(factor);
                    if let Some(normalised) = normalised {
                        value.store_some(normalised.wrapping_add(start), count);
                    }
                    let gain = L::load_some(gain.wrapping_add(start), count);
                    let shift = L::load_some(shift.wrapping_add(start), count);
                    value.fused(gain, shift).store_some(out.wrapping_add(start), count);
                });
            }
        }
        draft.done()
    }
}

/// The sum of two rows, as long as `sum`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn add<L: Lanes>(left: *const f32, right: *const f32, sum: &mut [f32]) -> *const f32 {
    let (width, out) = (sum.len(), sum.as_mut_ptr());
    // SAFETY: `count` numbers are left in each; the caller's for the rest.
    unsafe {
        pieces!(width, start, count, {
            let right = L::load_some(right.wrapping_add(start), count);
            L::load_some(left.wrapping_add(start), count).plus(right).store_some(out.wrapping_add(start), count);
        });
    }
    out
}

/// A row's mean and one over its standard deviation; 0 and one over the root of its mean square.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn moments<L: Lanes>(form: NormForm, row: *const f32, width: usize, epsilon: f32) -> (f32, f32) {
    // SAFETY: `count` numbers are left in the row; the caller's for the rest.
    unsafe {
        let mut total = L::splat(0.0);
        if form == NormForm::Layer {
            pieces!(width, start, count, { total = total.plus(L::load_some(row.wrapping_add(start), count)) });
        }
        let mean = match form {
            NormForm::Layer => total.sum() / width as f32,
            NormForm::RootMeanSquare => 0.0,
        };
        let means = [mean; LANES];
        let mut squares = L::splat(0.0);
        pieces!(width, start, count, {
            // 0 in the lanes beyond the row's end, on both sides
            let mean = L::load_some(means.as_ptr(), count);
            let centred = L::load_some(row.wrapping_add(start), count).minus(mean);
            squares = centred.fused(centred, squares);
        });
        (mean, 1.0 / (squares.sum() / width as f32 + epsilon).sqrt())
    }
}

/// dX = (g − mean(g) − x̂·mean(g·x̂))/σ with g = dY·gain; without mean(g) where no mean was taken away.
pub struct NormBackward<'a> {
    pub form: NormForm,
    pub gradient: &'a Matrix,
    pub normalised: &'a Matrix,
    pub inverse: &'a Matrix,
    pub gain: &'a Matrix,
}

impl Work for NormBackward<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Matrix {
        let (rows, width) = (self.gradient.rows(), self.gradient.width());
        assert_eq!((self.normalised.rows(), self.normalised.width()), (rows, width), "both have one shape");
        let gain = self.gain.values()[..width].as_ptr();
        let mut draft = Draft::new(rows, width);
        for row in 0..rows {
            let (gradient, normalised) = (self.gradient.row(row).as_ptr(), self.normalised.row(row).as_ptr());
            let out = draft.values()[row * width..(row + 1) * width].as_mut_ptr();
            // SAFETY: each pointer has `width` numbers, and `count` of them are left; the caller's for the rest.
            unsafe {
                let (mut total, mut along) = (L::splat(0.0), L::splat(0.0));
                pieces!(width, start, count, {
                    let gain = L::load_some(gain.wrapping_add(start), count);
                    let scaled = L::load_some(gradient.wrapping_add(start), count).times(gain);
                    total = total.plus(scaled);
                    along = scaled.fused(L::load_some(normalised.wrapping_add(start), count), along);
                });
                let mean = match self.form {
                    NormForm::Layer => L::splat(total.sum() / width as f32),
                    NormForm::RootMeanSquare => L::splat(0.0),
                };
                let along = L::splat(-along.sum() / width as f32);
                let inverse = L::splat(self.inverse.values()[row]);
                pieces!(width, start, count, {
                    let gain = L::load_some(gain.wrapping_add(start), count);
                    let scaled = L::load_some(gradient.wrapping_add(start), count).times(gain).minus(mean);
                    let value = L::load_some(normalised.wrapping_add(start), count).fused(along, scaled);
                    value.times(inverse).store_some(out.wrapping_add(start), count);
                });
            }
        }
        draft.done()
    }
}
