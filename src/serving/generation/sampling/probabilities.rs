//! Logits become weights, in place, from which one is drawn. Knows nothing of tokens or random numbers.

use super::exp_sum::{self, BLOCK_SIZE, MIN_EXPONENT};
use super::top_k::{LANES, any_lane};
use super::top_p::TopPThreshold;

/// How logits become weights.
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxParams {
    /// The largest logit, whose weight is 1.
    pub max_logit: f32,
    /// Logits below it weigh nothing.
    pub min_logit: f32,
    pub temperature: f32,
}

/// Probabilities up to a common factor, with their sums by blocks, so that a draw need not look at all of them.
#[derive(Debug)]
pub struct Probabilities<'a> {
    values: &'a mut [f32],
    block_sums: &'a mut Vec<f64>,
}

impl<'a> Probabilities<'a> {
    /// `sums` is written over.
    pub fn from_logits(logits: &'a mut [f32], softmax: SoftmaxParams, block_sums: &'a mut Vec<f64>) -> Self {
        let inverse_temperature = 1.0 / softmax.temperature;
        // Where eˣ ends the weight is 0, and not the least number of all.
        let min_logit = softmax.min_logit.max(softmax.max_logit + MIN_EXPONENT * softmax.temperature);
        let probability = |logit: f32| {
            let value = exp_sum::exp((logit - softmax.max_logit) * inverse_temperature);
            if logit >= min_logit { value } else { 0.0 }
        };
        // With top-k and min-p nothing is left of nearly all chunks; without, asking is in vain.
        let is_filtered = |chunk: &[f32]| softmax.min_logit > f32::MIN && !any_lane(chunk, |logit| logit >= min_logit);
        block_sums.clear();
        for block in logits.chunks_mut(BLOCK_SIZE) {
            let (chunks, remainder) = block.as_chunks_mut::<LANES>();
            for chunk in chunks {
                if is_filtered(chunk) {
                    chunk.fill(0.0);
                } else {
                    chunk.iter_mut().for_each(|value| *value = probability(*value));
                }
            }
            remainder.iter_mut().for_each(|value| *value = probability(*value));
            block_sums.push(exp_sum::sum_block(block, |weight| weight));
        }
        Self { values: logits, block_sums }
    }

    pub fn values(&self) -> &[f32] {
        self.values
    }

    pub fn total(&self) -> f64 {
        self.block_sums.iter().sum()
    }

    /// What is outside weighs nothing.
    pub fn apply_top_p(&mut self, threshold: TopPThreshold) {
        let TopPThreshold { min_probability, excluded_ties } = threshold;
        let excluded = self.values.iter_mut().rev().filter(|value| **value == min_probability).take(excluded_ties);
        excluded.for_each(|value| *value = 0.0);
        self.block_sums.clear();
        for block in self.values.chunks_mut(BLOCK_SIZE) {
            block.iter_mut().for_each(|value| *value = if *value >= min_probability { *value } else { 0.0 });
            self.block_sums.push(exp_sum::sum_block(block, |weight| weight));
        }
    }

    /// The place up to which the share `at`, in `[0, 1)`, of all weight lies, in the order of places; never one without
    /// weight.
    pub fn index_at(&self, cumulative: f64) -> u32 {
        let (block, remaining) = self.block_at(cumulative * self.total());
        let start = block * BLOCK_SIZE;
        let end = self.values.len().min(start + BLOCK_SIZE);
        let mut remaining = remaining;
        // Sums of the same numbers in another order differ in their last bits: whoever runs past the end has the last.
        let mut index = start;
        for candidate in (start..end).filter(|place| self.values[*place] > 0.0) {
            index = candidate;
            remaining -= f64::from(self.values[candidate]);
            if remaining < 0.0 {
                break;
            }
        }
        index as u32
    }

    /// The block in which `weight` is used up, and what is left of it there.
    fn block_at(&self, mass: f64) -> (usize, f64) {
        let mut remaining = mass;
        let mut found = (0, mass);
        for (block, sum) in self.block_sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
            found = (block, remaining);
            if remaining < *sum {
                break;
            }
            remaining -= sum;
        }
        found
    }
}
