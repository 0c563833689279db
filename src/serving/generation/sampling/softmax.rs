//! Softmax over logits in place, and drawing from it.

use super::filters::{BLOCK_SIZE, LANES, TopPThreshold, any_lane};
use std::f32::consts::LOG2_E;

/// Smallest argument of [`exp`]; smaller results vanish in a sum with 1.
const MIN_EXPONENT: f32 = -87.0;
/// 1.5 · 2²³: adding it rounds a number to the nearest integer, in the lowest bits of the sum.
const ROUNDING_BIAS: f32 = 12_582_912.0;

/// eˣ for x from −87 to 0, accurate to about one ulp; smaller values and NaN count as −87.
///
/// 2ⁿ·eʳ with |r| ≤ ln 2 / 2 and the Taylor series of eʳ up to r⁶. Plain arithmetic, which the compiler vectorizes and which
/// gives the same bits on every machine.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = if x > MIN_EXPONENT { x } else { MIN_EXPONENT };
    let shifted = x * LOG2_E + ROUNDING_BIAS;
    let exponent = shifted - ROUNDING_BIAS;
    // ln 2 in two parts, the first exact in few bits.
    let r = x - exponent * (355.0 / 512.0) + exponent * 2.121_944_4e-4;
    let sum = 1.0 / 720.0 * r + 1.0 / 120.0;
    let sum = ((sum * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5;
    let sum = (sum * r + 1.0) * r + 1.0;
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// Sum of eˣ⁻ᵐᵃˣ over all values. −∞ and NaN add a negligible amount.
pub fn sum_exp(values: &[f32], max: f32) -> f64 {
    values.chunks(BLOCK_SIZE).map(|block| sum_block(block, |value| exp(value - max))).sum()
}

/// Sum over a block, lane by lane in a fixed order.
#[inline(always)]
fn sum_block(block: &[f32], map: impl Fn(f32) -> f32) -> f64 {
    let mut lane_sums = [0.0; LANES];
    let (chunks, remainder) = block.as_chunks::<LANES>();
    for (sum, value) in lane_sums.iter_mut().zip(remainder) {
        *sum = map(*value);
    }
    for chunk in chunks {
        for (sum, value) in lane_sums.iter_mut().zip(chunk) {
            *sum += map(*value);
        }
    }
    lane_sums.into_iter().map(f64::from).sum()
}

/// Parameters of a softmax up to a constant factor.
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxParams {
    /// The largest logit; its probability becomes 1.
    pub max_logit: f32,
    /// Smaller logits get probability 0.
    pub min_logit: f32,
    pub temperature: f32,
}

/// Unnormalized probabilities with sums of blocks, so that a draw reads one block only.
#[derive(Debug)]
pub struct Probabilities<'a> {
    values: &'a mut [f32],
    block_sums: &'a mut Vec<f64>,
}

impl<'a> Probabilities<'a> {
    /// Converts logits in place. Overwrites `block_sums`.
    pub fn from_logits(logits: &'a mut [f32], softmax: SoftmaxParams, block_sums: &'a mut Vec<f64>) -> Self {
        let inverse_temperature = 1.0 / softmax.temperature;
        // Below the range of `exp` the probability is 0, not its smallest result.
        let min_logit = softmax.min_logit.max(softmax.max_logit + MIN_EXPONENT * softmax.temperature);
        let probability = |logit: f32| {
            let value = exp((logit - softmax.max_logit) * inverse_temperature);
            if logit >= min_logit { value } else { 0.0 }
        };
        // With top-k or min-p nearly all chunks are filtered completely; without them the test is useless.
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
            block_sums.push(sum_block(block, |value| value));
        }
        Self { values: logits, block_sums }
    }

    pub fn values(&self) -> &[f32] {
        self.values
    }

    pub fn total(&self) -> f64 {
        self.block_sums.iter().sum()
    }

    /// Sets the probabilities outside the threshold to 0.
    pub fn apply_top_p(&mut self, threshold: TopPThreshold) {
        let TopPThreshold { min_probability, excluded_ties } = threshold;
        let excluded = self.values.iter_mut().rev().filter(|value| **value == min_probability).take(excluded_ties);
        excluded.for_each(|value| *value = 0.0);
        self.block_sums.clear();
        for block in self.values.chunks_mut(BLOCK_SIZE) {
            block.iter_mut().for_each(|value| *value = if *value >= min_probability { *value } else { 0.0 });
            self.block_sums.push(sum_block(block, |value| value));
        }
    }

    /// Returns the index at which the cumulative probability reaches the share `cumulative`, in `[0, 1)`, of the total;
    /// never one with probability 0.
    pub fn index_at(&self, cumulative: f64) -> u32 {
        let (block, remaining) = self.block_at(cumulative * self.total());
        let start = block * BLOCK_SIZE;
        let end = self.values.len().min(start + BLOCK_SIZE);
        let mut remaining = remaining;
        // The sum in another order differs in its last bits: beyond the end, the last index is taken.
        let mut index = start;
        for candidate in (start..end).filter(|index| self.values[*index] > 0.0) {
            index = candidate;
            remaining -= f64::from(self.values[candidate]);
            if remaining < 0.0 {
                break;
            }
        }
        index as u32
    }

    /// Returns the block in which the cumulative sum reaches `mass`, and the mass that is left at its start.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_to_two_ulps() {
        let relative_errors = (0..=87_000).map(|thousandths| {
            let x = -(thousandths as f32) / 1000.0;
            let expected = f64::from(x).exp();
            ((f64::from(exp(x)) - expected) / expected).abs()
        });
        let max_error = relative_errors.fold(0.0, f64::max);
        assert!(max_error < 2.0 * f64::from(f32::EPSILON), "{max_error}");
        assert_eq!((exp(0.0), exp(-1e9), exp(f32::NAN)), (1.0, exp(-87.0), exp(-87.0)));
    }

    #[test]
    fn sum_exp_is_accurate_for_any_length() {
        for count in [1, 15, 16, 1023, 1024, 1041, 5000] {
            let values: Vec<f32> = (0..count).map(|i| -((i * 7919 % 1000) as f32) / 100.0).collect();
            let expected: f64 = values.iter().map(|value| f64::from(*value).exp()).sum();
            assert!((sum_exp(&values, 0.0) / expected - 1.0).abs() < 1e-6, "{count}");
        }
    }
}
