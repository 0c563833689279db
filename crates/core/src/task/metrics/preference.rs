//! Figures of preferences, from how each word of both answers was judged.

use super::language::JUDGED;
use crate::task::preference::{Config, Pair};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = PreferenceFigures)]
pub struct Preference {
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
pub fn sums(judged: &[f32], lengths: &[[usize; 2]]) -> Vec<Pair> {
    let mut words = judged.chunks_exact(JUDGED).map(|word| -f64::from(word[0]));
    lengths.iter().map(|lengths| lengths.map(|length| words.by_ref().take(length).sum())).collect()
}

pub fn figures(judged: &[f32], lengths: &[[usize; 2]], reference: &[Pair], config: &Config) -> Preference {
    let now = sums(judged, lengths);
    let pairs = now.iter().zip(reference).zip(lengths);
    let verdicts: Vec<_> = pairs.map(|((now, before), lengths)| config.judge(*now, *before, *lengths)).collect();
    let count = verdicts.len().max(1) as f64;
    let mean = |of: &dyn Fn(&crate::task::preference::Verdict) -> f64| verdicts.iter().map(of).sum::<f64>() / count;
    Preference {
        examples: verdicts.len(),
        loss: mean(&|one| one.loss),
        accuracy: mean(&|one| f64::from(u8::from(one.rewards[0] > one.rewards[1]))),
        margin: mean(&|one| one.rewards[0] - one.rewards[1]),
        chosen_reward: mean(&|one| one.rewards[0]),
        rejected_reward: mean(&|one| one.rewards[1]),
    }
}
