//! Logits become weights, in place, from which one is drawn. Knows nothing of tokens or random numbers.

use super::exponential::{self, BLOCK, LEAST};
use super::largest::{LANES, any};
use super::nucleus::Nucleus;

/// How logits become weights.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// The largest logit, whose weight is 1.
    pub largest: f32,
    /// Logits below it weigh nothing.
    pub floor: f32,
    pub temperature: f32,
}

/// Probabilities up to a common factor, with their sums by blocks, so that a draw need not look at all of them.
#[derive(Debug)]
pub struct Weights<'a> {
    values: &'a mut [f32],
    sums: &'a mut Vec<f64>,
}

impl<'a> Weights<'a> {
    /// `sums` is written over.
    pub fn of(logits: &'a mut [f32], scale: Scale, sums: &'a mut Vec<f64>) -> Self {
        let rate = 1.0 / scale.temperature;
        // Where eˣ ends the weight is 0, and not the least number of all.
        let floor = scale.floor.max(scale.largest + LEAST * scale.temperature);
        let weigh = |logit: f32| {
            let weight = exponential::exp((logit - scale.largest) * rate);
            if logit >= floor { weight } else { 0.0 }
        };
        // With top-k and min-p nothing is left of nearly all chunks; without, asking is in vain.
        let is_empty = |chunk: &[f32]| scale.floor > f32::MIN && !any(chunk, |logit| logit >= floor);
        sums.clear();
        for block in logits.chunks_mut(BLOCK) {
            let (chunks, rest) = block.as_chunks_mut::<LANES>();
            for chunk in chunks {
                if is_empty(chunk) {
                    chunk.fill(0.0);
                } else {
                    chunk.iter_mut().for_each(|value| *value = weigh(*value));
                }
            }
            rest.iter_mut().for_each(|value| *value = weigh(*value));
            sums.push(exponential::sum(block, |weight| weight));
        }
        Self { values: logits, sums }
    }

    pub fn values(&self) -> &[f32] {
        self.values
    }

    pub fn total(&self) -> f64 {
        self.sums.iter().sum()
    }

    /// What is outside weighs nothing.
    pub fn keep(&mut self, nucleus: Nucleus) {
        let Nucleus { floor, surplus } = nucleus;
        let outside = self.values.iter_mut().rev().filter(|value| **value == floor).take(surplus);
        outside.for_each(|value| *value = 0.0);
        self.sums.clear();
        for block in self.values.chunks_mut(BLOCK) {
            block.iter_mut().for_each(|value| *value = if *value >= floor { *value } else { 0.0 });
            self.sums.push(exponential::sum(block, |weight| weight));
        }
    }

    /// The place up to which the share `at`, in `[0, 1)`, of all weight lies, in the order of places; never one without
    /// weight.
    pub fn at(&self, at: f64) -> u32 {
        let (block, left) = self.block(at * self.total());
        let start = block * BLOCK;
        let end = self.values.len().min(start + BLOCK);
        let mut left = left;
        // Sums of the same numbers in another order differ in their last bits: whoever runs past the end has the last.
        let mut found = start;
        for place in (start..end).filter(|place| self.values[*place] > 0.0) {
            found = place;
            left -= f64::from(self.values[place]);
            if left < 0.0 {
                break;
            }
        }
        found as u32
    }

    /// The block in which `weight` is used up, and what is left of it there.
    fn block(&self, weight: f64) -> (usize, f64) {
        let mut left = weight;
        let mut found = (0, weight);
        for (block, sum) in self.sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
            found = (block, left);
            if left < *sum {
                break;
            }
            left -= sum;
        }
        found
    }
}
