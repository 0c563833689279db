//! Preference optimisation: raises the probability of the chosen answer over the rejected one, relative to the policy before the
//! first step. Direct preference optimisation (DPO, Rafailov et al. 2023) or its squared form (IPO, Azar et al. 2023).
//! Its metrics are accuracy, margin and rewards relative to the reference policy.

use super::{
    Example, HeadSpec, Input, PostprocessContext, Prediction, RowSchema, Target, Task, TaskDefaults, UntrainableRows,
    lm_tokenize,
};
use crate::error::{Error, FieldError, Result};
use crate::model::{TextLimits, Tokenizer, Tokens};
use crate::task::confidence::{self, Interval};
use crate::task::lm_loss::TOKEN_METRICS_WIDTH;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{Objective, ObjectiveContext, PairLogProbs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub use objective::PreferenceObjective;

mod objective;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Preference)]
pub struct Config {
    /// Strength of the pull towards the reference policy: a larger value keeps the policy closer to it.
    #[schema(minimum = 0.0001, maximum = 10)]
    pub beta: f64,
    pub loss: Loss,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// −log σ(β·h), where h is the log-ratio to the reference of the chosen answer minus that of the rejected one.
    #[default]
    Dpo,
    /// (h − 1/(2β))², with log-probabilities averaged over tokens.
    Ipo,
}

impl Default for Config {
    fn default() -> Self {
        Self { beta: 0.1, loss: Loss::default() }
    }
}

/// Loss of one pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLoss {
    pub loss: f64,
    /// Gradient of the loss with respect to each log-probability.
    pub gradient: PairLogProbs,
    /// β times the log-ratio of each answer to the reference.
    pub rewards: PairLogProbs,
}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "preference"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults::GENERATION
    }

    fn metric_names(&self) -> &'static [&'static str] {
        &["loss", "accuracy", "margin"]
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        &[RowSchema::Chosen]
    }

    fn head(&self, _labels: &[String]) -> HeadSpec {
        HeadSpec::CAUSAL_LM
    }

    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens> {
        input.tokenize(tokenizer, limits)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        if let Target::Preference { chosen, rejected } = &example.target {
            let tokenize =
                |answer: &str| lm_tokenize::tokenize_completion(tokenizer, &example.text, answer, max_length);
            return Ok(vec![tokenize(chosen)?, tokenize(rejected)?]);
        }
        if let Target::ConversationPreference { chosen, rejected } = &example.target {
            let tokenize = |conversation| lm_tokenize::tokenize_conversation(tokenizer, conversation, max_length);
            return Ok(vec![tokenize(chosen)?, tokenize(rejected)?]);
        }
        Err(example.wrong_target(self.type_name()))
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Skip
    }

    /// Both answers must have target positions.
    fn check_trainable(&self, sequences: &[Tokens]) -> Result<()> {
        match sequences.iter().all(lm_tokenize::has_targets) {
            true => Ok(()),
            false => Err(lm_tokenize::nothing_to_learn(sequences)),
        }
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(Box::new(PreferenceObjective::new(context, self)))
    }

    fn postprocess(&self, _context: &PostprocessContext, _outputs: Vec<f32>, _input: &Input) -> Result<Prediction> {
        Err(Error::internal("an adapter that generates text has no predictions"))
    }

    fn validate(&self) -> Vec<FieldError> {
        match (1e-4..=10.0).contains(&self.beta) {
            true => Vec::new(),
            false => vec![FieldError::at_pointer("/task/beta", "beta must be between 0.0001 and 10")],
        }
    }
}

impl Config {
    /// Loss of a pair whose log-probabilities are sums over `answer_lengths` tokens.
    pub fn pair_loss(&self, policy: PairLogProbs, reference: PairLogProbs, answer_lengths: [usize; 2]) -> PairLoss {
        let divisors = match self.loss {
            Loss::Dpo => [1.0, 1.0],
            Loss::Ipo => answer_lengths.map(|count| count.max(1) as f64),
        };
        let log_ratios: PairLogProbs =
            std::array::from_fn(|answer| (policy[answer] - reference[answer]) / divisors[answer]);
        let h = log_ratios[0] - log_ratios[1];
        let (loss, dloss_dh) = match self.loss {
            Loss::Dpo => {
                let margin = self.beta * h;
                // −log σ(m) = max(−m, 0) + log(1 + e^−|m|)
                let loss = (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
                (loss, -self.beta / (1.0 + margin.exp()))
            }
            Loss::Ipo => {
                let difference = h - 1.0 / (2.0 * self.beta);
                (difference * difference, 2.0 * difference)
            }
        };
        let gradient = [dloss_dh / divisors[0], -dloss_dh / divisors[1]];
        PairLoss { loss, gradient, rewards: log_ratios.map(|gained| self.beta * gained) }
    }
}

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

    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        vec![("accuracy", confidence::proportion(self.accuracy, self.examples))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_match_finite_differences_and_the_initial_loss_is_ln_2() {
        let (now, before, tokens) = ([-7.0, -9.5], [-8.0, -9.0], [3, 5]);
        for loss in [Loss::Dpo, Loss::Ipo] {
            let config = Config { beta: 0.3, loss };
            let pair_loss = config.pair_loss(now, before, tokens);
            for answer in 0..2 {
                let loss_at = |by: f64| {
                    let mut now = now;
                    now[answer] += by;
                    config.pair_loss(now, before, tokens).loss
                };
                let expected = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
                assert!(
                    (pair_loss.gradient[answer] - expected).abs() < 1e-8,
                    "{loss:?}: {pair_loss:?}, not {expected}"
                );
            }
        }
        let start = Config::default().pair_loss(before, before, tokens);
        assert!((start.loss - std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!(start.rewards, [0.0, 0.0]);
        // TRL's sigmoid loss of these: −logsigmoid(0.1·(1.0 + 0.5)).
        assert!((Config::default().pair_loss(now, before, tokens).loss - 0.620_957_047_79).abs() < 1e-9);
    }
}
