//! Cross entropy and its gradient.

use super::lanes::{LANES, Lanes, Work, exp};
use super::memory::{Draft, Matrix};

/// −log softmax(logits)[label] of each row, and softmax − one-hot.
pub struct CrossEntropy<'a> {
    /// `(rows, labels)`
    pub logits: &'a Matrix,
    pub labels: &'a [u32],
}

/// Registers whose lanes are summed before the sum goes on in more digits.
const SUMMED: usize = 64;

impl Work for CrossEntropy<'_> {
    type Output = (Vec<f64>, Matrix);

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> (Vec<f64>, Matrix) {
        let (rows, width) = (self.logits.rows(), self.logits.width());
        let mut draft = Draft::new(rows, width);
        let mut losses = Vec::with_capacity(rows);
        for (row, label) in self.labels.iter().enumerate() {
            let (logits, out) = (self.logits.row(row), &mut draft.values()[row * width..(row + 1) * width]);
            // SAFETY: the caller's.
            let (largest, total) = unsafe { exponentials::<L>(logits, out) };
            losses.push(total.ln() - f64::from(logits[*label as usize] - largest));
            let factor = (1.0 / total) as f32;
            out.iter_mut().for_each(|value| *value *= factor);
            out[*label as usize] -= 1.0;
        }
        (losses, draft.done())
    }
}

/// The largest number, and e to the power of each less it, with their sum.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn exponentials<L: Lanes>(logits: &[f32], out: &mut [f32]) -> (f32, f64) {
    let (whole, rest) = logits.split_at(logits.len() / LANES * LANES);
    // SAFETY: every register lies within its slice; the caller's for the rest.
    unsafe {
        let mut largest = L::splat(f32::NEG_INFINITY);
        for registers in whole.chunks_exact(LANES) {
            largest = largest.max(L::load(registers.as_ptr()));
        }
        let largest = rest.iter().copied().fold(largest.largest(), f32::max);
        let mut total = 0.0;
        for (logits, out) in logits.chunks(SUMMED * LANES).zip(out.chunks_mut(SUMMED * LANES)) {
            let mut sum = L::splat(0.0);
            for (logits, out) in logits.chunks(LANES).zip(out.chunks_mut(LANES)) {
                let value = exp(L::load_some(logits.as_ptr(), logits.len()).minus(L::splat(largest)));
                value.store_some(out.as_mut_ptr(), out.len());
                if out.len() == LANES {
                    sum = sum.plus(value);
                } else {
                    total += out.iter().map(|value| f64::from(*value)).sum::<f64>();
                }
            }
            total += f64::from(sum.sum());
        }
        (largest, total)
    }
}
