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
        // −log softmax of the word among [0, 2, 1] and [3, 0, 0]
        let found = figures(&[0.407_606, 1.0, 3.094_923, 0.0], 1);
        assert!((found.loss - 1.751_264).abs() < 1e-5, "{found:?}");
        assert!((found.perplexity - found.loss.exp()).abs() < 1e-12);
        assert_eq!(found.accuracy, 0.5);
    }
}
