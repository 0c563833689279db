//! Softmax over rows of scores, and its backward pass.

use super::score_mask::ScoreMask;
use crate::backend::cpu::simd::{LANES, Simd, SimdKernel, exp, for_each_vector};

/// Stride of the score rows: the length rounded up to whole vectors.
pub fn padded_len(length: usize) -> usize {
    length.next_multiple_of(LANES)
}

/// Computes the softmax of each row in place; masked positions and those beyond `length` become 0. Rows are
/// `row_stride` apart.
///
/// # Safety
/// The CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn softmax<L: Simd>(scores: &mut [f32], row_stride: usize, length: usize, scale: f32, mask: Option<ScoreMask>) {
    let padded = padded_len(length);
    for (index, row_scores) in scores.chunks_mut(row_stride).enumerate() {
        let row_scores = &mut row_scores[..padded];
        row_scores[length..].fill(f32::NEG_INFINITY);
        if let Some(mask) = &mask {
            mask.apply_bias_and_mask(index, &mut row_scores[..length]);
        }
        let row = row_scores.as_mut_ptr();
        // SAFETY: `row` points to `padded` values, a whole number of vectors; the CPU supports `L`.
        unsafe {
            let mut max_score = L::splat(f32::NEG_INFINITY);
            for_each_vector!(padded, at, { max_score = max_score.max(L::load(row.wrapping_add(at))) });
            let shift = L::splat(-max_score.reduce_max() * scale);
            for_each_vector!(padded, at, {
                let value = exp(L::load(row.wrapping_add(at)).mul_add(L::splat(scale), shift));
                value.store(row.wrapping_add(at));
                if length - at < LANES {
                    // Lanes beyond the end hold tiny values, which must be 0.
                    L::splat(0.0).store(row.wrapping_add(at));
                    value.store_partial(row.wrapping_add(at), length - at);
                }
            });
            // Masked positions hold tiny values, too.
            if let Some(mask) = &mask {
                mask.mask_probabilities(index, &mut row_scores[..length]);
            }
            let row = row_scores.as_mut_ptr();
            let mut total = L::splat(0.0);
            for_each_vector!(padded, at, { total = total.add(L::load(row.wrapping_add(at))) });
            let factor = L::splat(1.0 / total.reduce_sum());
            for_each_vector!(padded, at, { L::load(row.wrapping_add(at)).mul(factor).store(row.wrapping_add(at)) });
        }
    }
}

/// Turns the gradient with respect to the probabilities into the one with respect to the unscaled scores, in place.
/// Rows have `length` values and are `row_stride` apart on both sides.
///
/// # Safety
/// The CPU supports the instructions of `L`.
#[inline(always)]
unsafe fn softmax_backward<L: Simd>(
    gradients: &mut [f32],
    probabilities: &[f32],
    row_stride: usize,
    length: usize,
    scale: f32,
) {
    let padded = padded_len(length);
    for (gradient, probabilities) in gradients.chunks_mut(row_stride).zip(probabilities.chunks(row_stride)) {
        let (gradient, probabilities) = (gradient[..padded].as_mut_ptr(), probabilities[..padded].as_ptr());
        // SAFETY: both pointers are to `padded` values, a whole number of vectors that is 0 beyond `length`; the CPU
        // supports `L`.
        unsafe {
            let mut dot_vector = L::splat(0.0);
            for_each_vector!(padded, at, {
                dot_vector =
                    L::load(gradient.wrapping_add(at)).mul_add(L::load(probabilities.wrapping_add(at)), dot_vector);
            });
            let dot = L::splat(dot_vector.reduce_sum());
            for_each_vector!(padded, at, {
                let value = L::load(gradient.wrapping_add(at)).sub(dot);
                let value = value.mul(L::load(probabilities.wrapping_add(at))).mul(L::splat(scale));
                value.store(gradient.wrapping_add(at));
            });
        }
    }
}

/// Kernel of the softmax, in place.
pub struct Softmax<'a> {
    pub scores: &'a mut [f32],
    /// Distance between rows.
    pub row_stride: usize,
    pub length: usize,
    pub scale: f32,
    pub mask: Option<ScoreMask<'a>>,
}

impl SimdKernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        // SAFETY: `Isa::run` calls this only on CPUs that support the instructions of `L`.
        unsafe { softmax::<L>(self.scores, self.row_stride, self.length, self.scale, self.mask) }
    }
}

/// Kernel of the softmax's backward pass, in place.
pub struct SoftmaxBackward<'a> {
    pub gradients: &'a mut [f32],
    pub probabilities: &'a [f32],
    pub row_stride: usize,
    pub length: usize,
    pub scale: f32,
}

impl SimdKernel for SoftmaxBackward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        // SAFETY: `Isa::run` calls this only on CPUs that support the instructions of `L`.
        unsafe { softmax_backward::<L>(self.gradients, self.probabilities, self.row_stride, self.length, self.scale) }
    }
}
