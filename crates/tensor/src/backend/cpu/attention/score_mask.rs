//! Mask and relative position bias applied to rows of scores.
//!
//! Simple loops over rows that are in the cache; unmasked attention skips them.

use crate::attention_mask::AttentionMask;

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
