//! Layer norm (Ba, Kiros, Hinton 2016) of rows, or of the sum of two rows: a sublayer's output and its residual.

use super::lanes::{LANES, Lanes, Work};
use super::memory::{Draft, Matrix};

/// What a backward pass needs.
pub struct Kept {
    /// `(rows, width)`
    pub normalised: Draft,
    /// `(rows, 1)`: one over the standard deviation
    pub inverse: Draft,
}

pub struct Norm<'a> {
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
        let mut draft = Draft::new(rows, width);
        let mut sum = Draft::new(1, width);
        for row in 0..rows {
            let input = self.input.row(row);
            let input = match self.residual {
                None => input,
                Some(residual) => {
                    let sum = &mut sum.values()[..width];
                    // SAFETY: the caller's; a row of the residual is as wide.
                    unsafe { add::<L>(input, residual.row(row), sum) };
                    sum
                }
            };
            let out = &mut draft.values()[row * width..(row + 1) * width];
            // SAFETY: the caller's.
            unsafe {
                let (mean, inverse) = moments::<L>(input, self.epsilon);
                let centre = |value: L| value.minus(L::splat(mean)).times(L::splat(inverse));
                if let Some(kept) = &mut self.keep {
                    kept.inverse.values()[row] = inverse;
                    let normalised = &mut kept.normalised.values()[row * width..(row + 1) * width];
                    each(width, |start, count| {
                        let value = centre(L::load_some(input[start..].as_ptr(), count));
                        value.store_some(normalised[start..].as_mut_ptr(), count);
                    });
                }
                let (gain, shift) = (self.gain.values(), self.shift.values());
                each(width, |start, count| {
                    let value = centre(L::load_some(input[start..].as_ptr(), count));
                    let gain = L::load_some(gain[start..].as_ptr(), count);
                    let shift = L::load_some(shift[start..].as_ptr(), count);
                    value.fused(gain, shift).store_some(out[start..].as_mut_ptr(), count);
                });
            }
        }
        draft.done()
    }
}

/// Calls `f` with the start and length of each piece of sixteen; the last may be shorter.
#[inline(always)]
fn each(width: usize, mut f: impl FnMut(usize, usize)) {
    for start in (0..width).step_by(LANES) {
        f(start, LANES.min(width - start));
    }
}

/// # Safety
/// As [`Lanes`]; the three are equally long.
#[inline(always)]
unsafe fn add<L: Lanes>(left: &[f32], right: &[f32], sum: &mut [f32]) {
    each(sum.len(), |start, count| {
        let (left, right) = (left[start..].as_ptr(), right[start..].as_ptr());
        // SAFETY: `count` numbers follow each pointer.
        unsafe { L::load_some(left, count).plus(L::load_some(right, count)).store_some(sum[start..].as_mut_ptr(), count) };
    });
}

/// A row's mean and one over its standard deviation.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn moments<L: Lanes>(row: &[f32], epsilon: f32) -> (f32, f32) {
    let width = row.len();
    // SAFETY: `count` numbers follow each pointer; the caller's for the rest.
    unsafe {
        let mut total = L::splat(0.0);
        each(width, |start, count| total = total.plus(L::load_some(row[start..].as_ptr(), count)));
        let mean = total.sum() / width as f32;
        let mut squares = L::splat(0.0);
        each(width, |start, count| {
            // The lanes beyond the row's end are the mean itself, and so add nothing.
            let centred = match count {
                LANES => L::load(row[start..].as_ptr()).minus(L::splat(mean)),
                some => {
                    let mut lanes = [mean; LANES];
                    lanes[..some].copy_from_slice(&row[start..]);
                    L::load(lanes.as_ptr()).minus(L::splat(mean))
                }
            };
            squares = centred.fused(centred, squares);
        });
        (mean, 1.0 / (squares.sum() / width as f32 + epsilon).sqrt())
    }
}

/// dX = (g − mean(g) − x̂·mean(g·x̂))/σ with g = dY·gain
pub struct NormBackward<'a> {
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
        let gain = self.gain.values();
        let mut draft = Draft::new(rows, width);
        for row in 0..rows {
            let (gradient, normalised) = (self.gradient.row(row), self.normalised.row(row));
            let out = &mut draft.values()[row * width..(row + 1) * width];
            // SAFETY: `count` numbers follow each pointer; the caller's for the rest.
            unsafe {
                let load = |from: &[f32], start: usize, count: usize| L::load_some(from[start..].as_ptr(), count);
                let (mut total, mut along) = (L::splat(0.0), L::splat(0.0));
                each(width, |start, count| {
                    let scaled = load(gradient, start, count).times(load(gain, start, count));
                    total = total.plus(scaled);
                    along = scaled.fused(load(normalised, start, count), along);
                });
                let mean = L::splat(total.sum() / width as f32);
                let along = L::splat(-along.sum() / width as f32);
                let inverse = L::splat(self.inverse.values()[row]);
                each(width, |start, count| {
                    let scaled = load(gradient, start, count).times(load(gain, start, count)).minus(mean);
                    let value = load(normalised, start, count).fused(along, scaled).times(inverse);
                    value.store_some(out[start..].as_mut_ptr(), count);
                });
            }
        }
        draft.done()
    }
}
