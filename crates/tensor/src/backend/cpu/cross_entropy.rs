//! Cross entropy loss and its gradient.

use super::matrix::{Matrix, MatrixBuf};
use super::simd::{LANES, Simd, SimdKernel, exp};

/// Computes −log softmax(logits)\[label\] of each row, and the gradient softmax − one-hot.
pub struct CrossEntropy<'a> {
    /// `(rows, labels)`
    pub logits: &'a Matrix,
    pub labels: &'a [u32],
}

/// Number of vectors summed in `f32` before the sum continues in `f64`.
const VECTORS_PER_PARTIAL_SUM: usize = 64;

impl SimdKernel for CrossEntropy<'_> {
    type Output = (Vec<f64>, Matrix);

    #[inline(always)]
    unsafe fn run<L: Simd>(self) -> (Vec<f64>, Matrix) {
        let (rows, width) = (self.logits.rows(), self.logits.width());
        let mut buf = MatrixBuf::new(rows, width);
        let mut losses = Vec::with_capacity(rows);
        for (row, label) in self.labels.iter().enumerate() {
            let (logits, out) = (self.logits.row(row), &mut buf.as_mut_slice()[row * width..(row + 1) * width]);
            // SAFETY: both slices have the row's width, and the CPU supports the instructions of `L`.
            let (max_logit, exp_sum) = unsafe { exp_and_sum::<L>(logits, out) };
            losses.push(exp_sum.ln() - f64::from(logits[*label as usize] - max_logit));
            let factor = (1.0 / exp_sum) as f32;
            out.iter_mut().for_each(|value| *value *= factor);
            out[*label as usize] -= 1.0;
        }
        (losses, buf.freeze())
    }
}

/// Writes exp(logit − max) to `out`; returns the maximum and the sum of the exponentials.
///
/// # Safety
/// The CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn exp_and_sum<L: Simd>(logits: &[f32], out: &mut [f32]) -> (f32, f64) {
    let (full_vectors, tail) = logits.split_at(logits.len() / LANES * LANES);
    // SAFETY: full vectors lie within `full_vectors`, partial loads and stores are limited by the chunk lengths; the
    // CPU supports `L`.
    unsafe {
        let mut max_vector = L::splat(f32::NEG_INFINITY);
        for vector in full_vectors.chunks_exact(LANES) {
            max_vector = max_vector.max(L::load(vector.as_ptr()));
        }
        let max_logit = tail.iter().copied().fold(max_vector.reduce_max(), f32::max);
        let mut exp_sum = 0.0;
        for (logits, out) in
            logits.chunks(VECTORS_PER_PARTIAL_SUM * LANES).zip(out.chunks_mut(VECTORS_PER_PARTIAL_SUM * LANES))
        {
            let mut partial_sum = L::splat(0.0);
            for (logits, out) in logits.chunks(LANES).zip(out.chunks_mut(LANES)) {
                let value = exp(L::load_partial(logits.as_ptr(), logits.len()).sub(L::splat(max_logit)));
                value.store_partial(out.as_mut_ptr(), out.len());
                if out.len() == LANES {
                    partial_sum = partial_sum.add(value);
                } else {
                    exp_sum += out.iter().map(|value| f64::from(*value)).sum::<f64>();
                }
            }
            exp_sum += f64::from(partial_sum.reduce_sum());
        }
        (max_logit, exp_sum)
    }
}
