//! Figures of preferences, from how each word of both answers was judged.

use super::language_model::TOKEN_METRICS_WIDTH;
use crate::task::preference::{Config, LogProbs};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = PreferenceFigures)]
pub struct PreferenceMetrics {
    pub examples: usize,
    pub loss: f64,
    /// The share of pairs in which the chosen answer has gained more than the rejected one.
    pub accuracy: f64,
    /// The mean of the chosen answer's reward less the rejected one's.
    pub margin: f64,
    /// β times what answers have gained in log-probability.
    pub chosen_reward: f64,
    pub rejected_reward: f64,
}

/// The log-probabilities of pairs with so many words, judged one after another.
pub fn answer_logprobs(token_metrics: &[f32], answer_lengths: &[[usize; 2]]) -> Vec<LogProbs> {
    let mut words = token_metrics.chunks_exact(TOKEN_METRICS_WIDTH).map(|word| -f64::from(word[0]));
    answer_lengths.iter().map(|lengths| lengths.map(|length| words.by_ref().take(length).sum())).collect()
}

pub fn compute(
    token_metrics: &[f32],
    answer_lengths: &[[usize; 2]],
    reference_logprobs: &[LogProbs],
    config: &Config,
) -> PreferenceMetrics {
    let policy_logprobs = answer_logprobs(token_metrics, answer_lengths);
    let pairs = policy_logprobs.iter().zip(reference_logprobs).zip(answer_lengths);
    let losses: Vec<_> = pairs.map(|((now, before), lengths)| config.pair_loss(*now, *before, *lengths)).collect();
    let count = losses.len().max(1) as f64;
    let mean_of = |of: &dyn Fn(&crate::task::preference::PairLoss) -> f64| losses.iter().map(of).sum::<f64>() / count;
    PreferenceMetrics {
        examples: losses.len(),
        loss: mean_of(&|one| one.loss),
        accuracy: mean_of(&|one| f64::from(u8::from(one.rewards[0] > one.rewards[1]))),
        margin: mean_of(&|one| one.rewards[0] - one.rewards[1]),
        chosen_reward: mean_of(&|one| one.rewards[0]),
        rejected_reward: mean_of(&|one| one.rewards[1]),
    }
}
