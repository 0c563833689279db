//! Cross entropy and its gradient.

use super::lanes::{LANES, Lanes, Work, exp};
use super::memory::{Draft, Matrix};

/// −log softmax(logits)[label], summed over the rows, and softmax − one-hot.
pub struct CrossEntropy<'a> {
    /// `(rows, labels)`
    pub logits: &'a Matrix,
    pub labels: &'a [u32],
}

impl Work for CrossEntropy<'_> {
    type Output = (f64, Matrix);

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> (f64, Matrix) {
        let (rows, width) = (self.logits.rows(), self.logits.width());
        let mut draft = Draft::new(rows, width);
        let mut loss = 0.0;
        for (row, label) in self.labels.iter().enumerate() {
            let (logits, out) = (self.logits.row(row), &mut draft.values()[row * width..(row + 1) * width]);
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (logits, out) in logits.chunks(LANES).zip(out.chunks_mut(LANES)) {
                // SAFETY: both hold as many numbers as are asked for; the caller's for the rest.
                unsafe {
                    let value = exp(L::load_some(logits.as_ptr(), logits.len()).minus(L::splat(largest)));
                    value.store_some(out.as_mut_ptr(), out.len());
                }
            }
            let total: f64 = out.iter().map(|value| f64::from(*value)).sum();
            loss += total.ln() - f64::from(logits[*label as usize] - largest);
            let factor = (1.0 / total) as f32;
            out.iter_mut().for_each(|value| *value *= factor);
            out[*label as usize] -= 1.0;
        }
        (loss, draft.done())
    }
}
