//! Softmax over rows of scores, and its backward pass; mask and relative position bias are applied to the scores first.

use crate::attention_mask::AttentionMask;
use crate::backend::cpu::simd::{LANES, Simd, SimdKernel, exp, for_each_vector};

/// Stride of the score rows: the length rounded up to whole vectors.
pub fn padded_len(length: usize) -> usize {
    length.next_multiple_of(LANES)
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

/// Rows that are computed at once: one instruction compares scores of all of them, and their exponentials overlap.
const GROUP_ROWS: usize = 4;

/// Kernel of the softmax of each row, in place; masked positions and those beyond `length` become 0.
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
    unsafe fn run<L: Simd>(mut self) {
        if self.length == 0 {
            return;
        }
        let last_lanes = self.length - (padded_len(self.length) - LANES);
        let (row_count, mut row) = (self.scores.len().div_ceil(self.row_stride), 0);
        // SAFETY: `lanes` are a whole vector. `Isa::run` calls this only on CPUs that support the instructions of `L`.
        unsafe {
            let mut lanes = [1.0; LANES];
            lanes[..last_lanes].fill(-1.0);
            let in_row = L::load(lanes.as_ptr());
            while row + GROUP_ROWS <= row_count {
                self.run_rows::<L, GROUP_ROWS>(row, in_row);
                row += GROUP_ROWS;
            }
            while row < row_count {
                self.run_rows::<L, 1>(row, in_row);
                row += 1;
            }
        }
    }
}

impl Softmax<'_> {
    /// Computes the softmax of `ROWS` rows, at most [`GROUP_ROWS`], from `first_row` on. `in_row` is negative in the lanes of a row's
    /// last vector that hold scores.
    ///
    /// # Safety
    /// The CPU supports the instructions of `L`.
    #[inline(always)]
    unsafe fn run_rows<L: Simd, const ROWS: usize>(&mut self, first_row: usize, in_row: L) {
        let &mut Self { ref mut scores, row_stride, length, scale, ref mask } = self;
        let padded = padded_len(length);
        let scores = &mut scores[first_row * row_stride..];
        assert!((ROWS - 1) * row_stride + padded <= scores.len(), "each row has whole vectors");
        if let Some(mask) = mask {
            for (index, row_scores) in scores.chunks_mut(row_stride).take(ROWS).enumerate() {
                mask.apply_bias_and_mask(first_row + index, &mut row_scores[..length]);
            }
        }
        let first = scores.as_mut_ptr();
        // SAFETY: each of the rows has `padded` values, a whole number of vectors, as asserted; the CPU supports `L`.
        unsafe {
            let (last, zero, lowest) = (padded - LANES, L::splat(0.0), L::splat(f32::NEG_INFINITY));
            let (mut maxima, mut row) = ([lowest; GROUP_ROWS], 0);
            while row < ROWS {
                let row_ptr = first.wrapping_add(row * row_stride);
                for_each_vector!(last, at, { maxima[row] = maxima[row].max(L::load(row_ptr.wrapping_add(at))) });
                let last_scores = L::load(row_ptr.wrapping_add(last));
                maxima[row] = maxima[row].max(in_row.select_negative(last_scores, lowest));
                row += 1;
            }
            let shifts = L::reduce_maxima(maxima).map(|max_score| -max_score * scale);
            for_each_vector!(last, at, {
                row = 0;
                while row < ROWS {
                    let score = first.wrapping_add(row * row_stride + at);
                    exp(L::load(score).mul_add(L::splat(scale), L::splat(shifts[row]))).store(score);
                    row += 1;
                }
            });
            row = 0;
            while row < ROWS {
                let score = first.wrapping_add(row * row_stride + last);
                let exponential = exp(L::load(score).mul_add(L::splat(scale), L::splat(shifts[row])));
                in_row.select_negative(exponential, zero).store(score);
                row += 1;
            }
            if let Some(mask) = mask {
                // Masked positions hold tiny values, which must be 0.
                for (index, row_scores) in scores.chunks_mut(row_stride).take(ROWS).enumerate() {
                    mask.mask_probabilities(first_row + index, &mut row_scores[..length]);
                }
            }
            let first = scores.as_mut_ptr();
            for row in 0..ROWS {
                let (row_ptr, mut total) = (first.wrapping_add(row * row_stride), zero);
                for_each_vector!(padded, at, { total = total.add(L::load(row_ptr.wrapping_add(at))) });
                let factor = L::splat(1.0 / total.reduce_sum());
                for_each_vector!(padded, at, {
                    let value = row_ptr.wrapping_add(at);
                    L::load(value).mul(factor).store(value);
                });
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::Isa;

    #[test]
    fn each_row_has_the_bits_that_it_has_alone() {
        const SCALE: f32 = 0.4;
        for isa in Isa::available() {
            for (length, rows) in
                [1, 5, 16, 17, 40].into_iter().flat_map(|length| [1, 3, 4, 9].map(|rows| (length, rows)))
            {
                let row_stride = padded_len(length) + LANES;
                let scores: Vec<f32> = (0..rows * row_stride).map(|index| 9.0 * (index as f32 * 0.7).sin()).collect();
                let mut together = scores.clone();
                isa.run(Softmax { scores: &mut together, row_stride, length, scale: SCALE, mask: None });
                for (row, probabilities) in together.chunks(row_stride).enumerate() {
                    let mut alone = scores[row * row_stride..][..row_stride].to_vec();
                    let exponentials = alone[..length].iter().map(|score| f64::from(score * SCALE).exp());
                    let exponentials: Vec<f64> = exponentials.collect();
                    isa.run(Softmax { scores: &mut alone, row_stride, length, scale: SCALE, mask: None });
                    assert_eq!(probabilities, alone, "{isa:?}: row {row} of {rows} with {length} scores");
                    let total: f64 = exponentials.iter().sum();
                    for (probability, exponential) in probabilities.iter().zip(exponentials) {
                        assert!((f64::from(*probability) - exponential / total).abs() < 1e-6, "{isa:?}: {probability}");
                    }
                    assert!(probabilities[length..padded_len(length)].iter().all(|padding| *padding == 0.0));
                }
            }
        }
    }
}
