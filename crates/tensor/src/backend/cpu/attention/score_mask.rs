//! What distances do to a row's scores: something is added to them, or they are hidden outside a window.
//!
//! Plain loops over a row, which lies in the cache; without distances nothing here runs.

use crate::attention_mask::AttentionMask;

/// For one head of one sequence.
pub struct ScoreMask<'a> {
    mask: &'a AttentionMask,
    /// By distance, from −reach to reach.
    bias: Option<&'a [f32]>,
    /// Keys in front of the sequence's own.
    prefix_len: usize,
    /// Of the first row that asks, among the sequence's own.
    first_query_position: usize,
    /// Of the first score, among the keys.
    first_key: usize,
    /// What scores will be multiplied by.
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

    /// The same for scores of keys from one of them on.
    pub fn starting_at_key(self, from: usize) -> Self {
        Self { first_key: from, ..self }
    }

    /// The scores of a row before they are scaled.
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

    /// What has become of them before they are divided by their sum.
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
