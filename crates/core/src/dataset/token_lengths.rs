//! Lengths of examples in tokens: counting with the base's tokenizer, and the histogram of a report.

use crate::error::Result;
use crate::model::{Tokenizer, Tokens};
use crate::task::{Config, Example};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Counts the tokens of an example.
pub trait CountTokens {
    /// Length of each of the example's sequences after truncation.
    ///
    /// # Errors
    /// `Invalid`, with the reason, for an example that cannot be trained on.
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenCount {
    pub tokens: usize,
    pub truncated: bool,
}

/// Counts tokens as training will see them: special tokens included, at most `max_length` per sequence.
pub struct TokenCounter<'a> {
    pub tokenizer: &'a Tokenizer,
    pub task: &'a Config,
    pub max_length: usize,
}

impl CountTokens for TokenCounter<'_> {
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>> {
        let sequences = self.task.tokenize_example(self.tokenizer, example, self.max_length)?;
        self.task.check_trainable(&sequences)?;
        let to_token_count = |tokens: &Tokens| TokenCount { tokens: tokens.ids.len(), truncated: tokens.truncated };
        Ok(sequences.iter().map(to_token_count).collect())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Histogram {
    pub min: usize,
    pub median: usize,
    pub p95: usize,
    pub max: usize,
    /// Total number of tokens of all texts.
    #[serde(default)]
    pub tokens: u64,
    /// Number of examples by length; the upper bounds are powers of two.
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// Largest length in the bucket, in tokens.
    pub up_to: usize,
    pub count: u64,
}

/// Counts how often each length occurs. The number of distinct lengths is at most `max_length`.
#[derive(Debug, Default)]
pub(super) struct LengthCounter {
    counts: BTreeMap<usize, u64>,
    total: u64,
}

impl LengthCounter {
    pub fn record(&mut self, tokens: usize) {
        *self.counts.entry(tokens).or_default() += 1;
        self.total += 1;
    }

    pub fn to_histogram(&self) -> Histogram {
        let (Some(min), Some(max)) = (self.counts.keys().next(), self.counts.keys().next_back()) else {
            return Histogram::default();
        };
        Histogram {
            min: *min,
            median: self.percentile(1, 2),
            p95: self.percentile(19, 20),
            max: *max,
            tokens: self.counts.iter().map(|(length, count)| *length as u64 * count).sum(),
            buckets: self.buckets(*min, *max),
        }
    }

    /// Percentile by the nearest-rank method: the smallest length that at least this fraction of the examples does not exceed.
    fn percentile(&self, numerator: u64, denominator: u64) -> usize {
        let rank = (self.total * numerator).div_ceil(denominator);
        let mut cumulative = 0;
        for (length, count) in &self.counts {
            cumulative += count;
            if cumulative >= rank {
                return *length;
            }
        }
        0
    }

    /// Buckets from the one of the shortest example to the one of the longest, empty ones included.
    fn buckets(&self, min: usize, max: usize) -> Vec<Bucket> {
        let mut buckets = Vec::new();
        let mut up_to = min.next_power_of_two();
        let mut lower_bound = 0;
        loop {
            let count = self.counts.range(lower_bound..=up_to).map(|(_, count)| count).sum();
            buckets.push(Bucket { up_to, count });
            if up_to >= max {
                return buckets;
            }
            lower_bound = up_to + 1;
            up_to *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_buckets_match_sorted_lengths() {
        let mut lengths = LengthCounter::default();
        (1..=20).chain([100]).for_each(|length| lengths.record(length));
        let histogram = lengths.to_histogram();
        assert_eq!((histogram.min, histogram.median, histogram.p95, histogram.max), (1, 11, 20, 100));
        let buckets: Vec<_> = histogram.buckets.iter().map(|bucket| (bucket.up_to, bucket.count)).collect();
        assert_eq!(buckets, [(1, 1), (2, 1), (4, 2), (8, 4), (16, 8), (32, 4), (64, 0), (128, 1)]);
    }

    #[test]
    fn empty_counter_gives_default_histogram() {
        assert_eq!(LengthCounter::default().to_histogram(), Histogram::default());
    }

    #[test]
    fn single_length_fills_every_percentile() {
        let mut lengths = LengthCounter::default();
        lengths.record(3);
        let histogram = lengths.to_histogram();
        assert_eq!((histogram.min, histogram.median, histogram.p95, histogram.max), (3, 3, 3, 3));
        assert_eq!(histogram.buckets, [Bucket { up_to: 4, count: 1 }]);
    }
}
