//! Lengths of examples in tokens: counting with the base's tokenizer, and the histogram of a report.

use crate::error::Result;
use crate::model::{Tokenizer, Tokens, VocabularyCount};
use crate::task::{Config, Example, Target};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Counts the tokens of examples.
pub trait CountTokens {
    /// Length of each of the example's sequences, before they are cut to `max_length`.
    ///
    /// # Errors
    /// `Invalid`, with the reason, for an example that cannot be trained on.
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>>;

    /// Tokens to which the sequences of a file with these lengths are cut; `None` where lengths do not matter.
    fn max_length(&self, _lengths: &Histogram) -> Option<usize> {
        None
    }

    /// Longest sequence that the base reads.
    fn longest(&self) -> usize {
        usize::MAX
    }

    /// Checks an example that is cut to `max_length` tokens.
    ///
    /// # Errors
    /// `Invalid` (`nothing_to_learn`) where nothing that can be learned remains.
    fn check_truncated(&self, _example: &Example, _max_length: usize) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCount {
    pub tokens: usize,
    /// Whether the text has more tokens than the base reads.
    pub truncated: bool,
    pub vocabulary: VocabularyCount,
}

/// How the tokens to which texts are cut are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLength {
    Fixed(usize),
    /// [`covering_length`] of the file, at least `min`.
    Covering {
        min: usize,
    },
}

/// Multiple of tokens to which a length is rounded up.
const LENGTH_MULTIPLE: usize = 64;

/// Largest length that is chosen for a file. The memory and the time of attention grow with its square, so a larger one has to be
/// asked for.
const MAX_COVERING_LENGTH: usize = 2048;

/// Length that covers 95 % of the texts: their 95th percentile rounded up to a multiple of 64, at least `min`, and at most 2048 and
/// `longest`.
pub fn covering_length(lengths: &Histogram, min: usize, longest: usize) -> usize {
    lengths.p95.next_multiple_of(LENGTH_MULTIPLE).min(MAX_COVERING_LENGTH).max(min).min(longest)
}

/// Counts no tokens.
pub struct NoLengths;

impl CountTokens for NoLengths {
    fn count_tokens(&self, _example: &Example) -> Result<Vec<TokenCount>> {
        Ok(Vec::new())
    }
}

/// Counts tokens as training will see them, special tokens included.
pub struct TokenCounter<'a> {
    pub tokenizer: &'a Tokenizer,
    pub task: &'a Config,
    pub max_length: MaxLength,
    /// Longest sequence that the base reads.
    pub longest: usize,
}

impl TokenCounter<'_> {
    /// Tokens up to which the example is counted: raw text that is packed is cut into windows, whatever its length.
    fn counted_length(&self, example: &Example) -> usize {
        match (self.task.packs_raw_text() && example.target == Target::Text, self.max_length) {
            (true, MaxLength::Fixed(length) | MaxLength::Covering { min: length }) => length.min(self.longest),
            (false, _) => self.longest,
        }
    }

    fn tokenize(&self, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        let sequences = self.task.tokenize_example(self.tokenizer, example, max_length)?;
        self.task.check_trainable(&sequences)?;
        Ok(sequences)
    }
}

impl CountTokens for TokenCounter<'_> {
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>> {
        let to_token_count = |tokens: &Tokens| TokenCount {
            tokens: tokens.ids.len(),
            truncated: tokens.truncated,
            vocabulary: self.tokenizer.count_unknown(&tokens.ids),
        };
        Ok(self.tokenize(example, self.counted_length(example))?.iter().map(to_token_count).collect())
    }

    fn max_length(&self, lengths: &Histogram) -> Option<usize> {
        Some(match self.max_length {
            MaxLength::Fixed(length) => length.min(self.longest),
            MaxLength::Covering { min } => covering_length(lengths, min, self.longest),
        })
    }

    fn longest(&self) -> usize {
        self.longest
    }

    fn check_truncated(&self, example: &Example, max_length: usize) -> Result<()> {
        self.tokenize(example, max_length).map(|_| ())
    }
}

/// Lengths of a file's texts in tokens, before they are cut to `max_length`.
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

/// Counts how often each length occurs. The number of distinct lengths is at most that of the base's positions.
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
    fn covering_length_is_rounded_up_and_within_its_bounds() {
        let covering = |p95, longest| covering_length(&Histogram { p95, ..Histogram::default() }, 128, longest);
        assert_eq!(
            [covering(12, 512), covering(128, 512), covering(170, 512), covering(500, 510)],
            [128, 128, 192, 510]
        );
        assert_eq!(covering(12, 64), 64, "the base reads no more");
        assert_eq!(covering(9000, 8192), 2048, "a larger one has to be asked for");
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
