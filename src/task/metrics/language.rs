//! Figures of a language model, from how each word that it was to find was judged.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Language {
    pub examples: usize,
    /// Mean cross entropy over those words.
    pub loss: f64,
    /// e to the loss.
    pub perplexity: f64,
    /// The share of them that were found: the likeliest word was the right one.
    pub accuracy: f64,
}

/// What a word's judgement takes: its loss, and 1 where it was found.
pub const JUDGED: usize = 2;

pub fn judge(logits: &[f32], vocabulary: usize, words: &[u32]) -> Vec<f32> {
    let one = |(row, id): (&[f32], &u32)| {
        let largest = row.iter().fold(f32::NEG_INFINITY, |largest, logit| largest.max(*logit));
        let total: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let loss = total.ln() + f64::from(largest) - f64::from(row[*id as usize]);
        [loss as f32, f32::from(u8::from(super::argmax(row) == *id as usize))]
    };
    logits.chunks_exact(vocabulary).zip(words).flat_map(one).collect()
}

pub fn figures(judged: &[f32], examples: usize) -> Language {
    let words = judged.chunks_exact(JUDGED);
    let count = words.len().max(1) as f64;
    let sum = |part: usize| words.clone().map(|word| f64::from(word[part])).sum::<f64>();
    let loss = sum(0) / count;
    Language { examples, loss, perplexity: loss.exp(), accuracy: sum(1) / count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_judged_by_their_probability() {
        let found = figures(&judge(&[0.0, 2.0, 1.0, 3.0, 0.0, 0.0], 3, &[1, 1]), 1);
        // −log softmax: 0.407606 and 3.094923
        assert!((found.loss - 1.751_264).abs() < 1e-5, "{found:?}");
        assert!((found.perplexity - found.loss.exp()).abs() < 1e-12);
        assert_eq!(found.accuracy, 0.5);
    }
}
