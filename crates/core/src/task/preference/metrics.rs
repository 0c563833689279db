//! Metrics of preference optimisation: accuracy, margin and rewards relative to the reference policy.

use super::{Config, PairLoss};
use crate::task::lm_loss::TOKEN_METRICS_WIDTH;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::PairLogProbs;
use serde::Serialize;
use serde_json::{Value, json};

/// Metrics of preference optimisation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreferenceMetrics {
    pub examples: usize,
    pub loss: f64,
    /// Share of pairs in which the chosen answer has the larger reward.
    pub accuracy: f64,
    /// Mean reward of the chosen answer minus that of the rejected one.
    pub margin: f64,
    /// Mean of β times the log-ratio to the reference.
    pub chosen_reward: f64,
    pub rejected_reward: f64,
}

/// Log-probabilities of pairs of answers, from the token metrics of all their tokens.
pub fn answer_logprobs(token_metrics: &[f32], answer_lengths: &[[usize; 2]]) -> Vec<PairLogProbs> {
    let mut logprobs = token_metrics.chunks_exact(TOKEN_METRICS_WIDTH).map(|token| -f64::from(token[0]));
    answer_lengths.iter().map(|lengths| lengths.map(|length| logprobs.by_ref().take(length).sum())).collect()
}

impl PreferenceMetrics {
    pub fn new(
        token_metrics: &[f32],
        answer_lengths: &[[usize; 2]],
        reference_logprobs: &[PairLogProbs],
        config: &Config,
    ) -> Self {
        let policy_logprobs = answer_logprobs(token_metrics, answer_lengths);
        let pairs = policy_logprobs.iter().zip(reference_logprobs).zip(answer_lengths);
        let losses: Vec<PairLoss> =
            pairs.map(|((policy, reference), lengths)| config.pair_loss(*policy, *reference, *lengths)).collect();
        let count = losses.len().max(1) as f64;
        let mean_of = |value: &dyn Fn(&PairLoss) -> f64| losses.iter().map(value).sum::<f64>() / count;
        Self {
            examples: losses.len(),
            loss: mean_of(&|pair| pair.loss),
            accuracy: mean_of(&|pair| f64::from(u8::from(pair.rewards[0] > pair.rewards[1]))),
            margin: mean_of(&|pair| pair.rewards[0] - pair.rewards[1]),
            chosen_reward: mean_of(&|pair| pair.rewards[0]),
            rejected_reward: mean_of(&|pair| pair.rewards[1]),
        }
    }
}

impl TaskMetrics for PreferenceMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }
}
