//! Softmax over rows of scores, and its backward pass; mask and relative position bias are applied to the scores first.

use crate::attention_mask::AttentionMask;
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

/// Mask of one head of one sequence.
pub struct ScoreMask<'a> {
    mask: &'a AttentionMask,
    /// Bias by distance, from −max distance to max distance.
    bias: Option<&'a [f32]>,
    /// Key rows before the sequence's own.
    prefix_len: usize,
    /// Position of the first query row among the sequence's own rows.
    first_query_position: usize,
    /// Index of the key that the first score belongs to.
    first_key: usize,
    /// Factor that the softmax applies to the scores later.
    scale: f32,
}

impl<'a> ScoreMask<'a> {
    pub fn new(
        mask: &'a AttentionMask,
        head: usize,
        (prefix_len, first_query_position): (usize, usize),
        scale: f32,
    ) -> Self {
        let bias = mask.relative_position_bias.as_ref().map(|bias| bias.as_matrix().row(head));
        Self { mask, bias, prefix_len, first_query_position, first_key: 0, scale }
    }

    /// Returns the mask for scores that start at this key.
    pub fn starting_at_key(self, from: usize) -> Self {
        Self { first_key: from, ..self }
    }

    /// Adds the bias to a row of unscaled scores and sets masked ones to −∞.
    pub fn apply_bias_and_mask(&self, row: usize, scores: &mut [f32]) {
        if let Some(bias) = self.bias {
            let max_distance = (bias.len() / 2) as isize;
            let first_distance = self.first_key as isize - (self.prefix_len + self.first_query_position + row) as isize;
            for (distance, score) in (first_distance..).zip(scores.iter_mut()) {
                *score += bias[(distance.clamp(-max_distance, max_distance) + max_distance) as usize] / self.scale;
            }
        }
        self.fill_masked(row, scores, f32::NEG_INFINITY);
    }

    /// Sets the exponentials of masked scores to 0.
    pub fn mask_probabilities(&self, row: usize, exponentials: &mut [f32]) {
        self.fill_masked(row, exponentials, 0.0);
    }

    fn fill_masked(&self, row: usize, values: &mut [f32], fill: f32) {
        let clamp_to_scores = |key: usize| key.max(self.first_key) - self.first_key;
        for range in
            self.mask.masked_ranges(self.first_query_position + row, self.prefix_len, self.first_key + values.len())
        {
            values[clamp_to_scores(range.start)..clamp_to_scores(range.end)].fill(fill);
        }
    }
}
