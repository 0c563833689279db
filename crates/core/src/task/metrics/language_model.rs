//! Figures of a language model, from how each word that it was to find was judged.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanguageModel {
    pub examples: usize,
    /// Mean cross entropy over those words.
    pub loss: f64,
    /// e to the loss.
    pub perplexity: f64,
    /// The share of them that were found: the likeliest word was the right one.
    pub accuracy: f64,
}

/// What a word's judgement takes: its loss, and 1 where it was found.
pub const TOKEN_METRICS_WIDTH: usize = 2;

pub fn compute(token_metrics: &[f32], examples: usize) -> LanguageModel {
    let tokens = token_metrics.chunks_exact(TOKEN_METRICS_WIDTH);
    let count = tokens.len().max(1) as f64;
    let sum_of = |part: usize| tokens.clone().map(|word| f64::from(word[part])).sum::<f64>();
    let loss = sum_of(0) / count;
    LanguageModel { examples, loss, perplexity: loss.exp(), accuracy: sum_of(1) / count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_accuracy_are_token_means() {
        // −log softmax of the word among [0, 2, 1] and [3, 0, 0]
        let metrics = compute(&[0.407_606, 1.0, 3.094_923, 0.0], 1);
        assert!((metrics.loss - 1.751_264).abs() < 1e-5, "{metrics:?}");
        assert!((metrics.perplexity - metrics.loss.exp()).abs() < 1e-12);
        assert_eq!(metrics.accuracy, 0.5);
    }
}
