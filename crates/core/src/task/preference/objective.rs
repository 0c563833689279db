//! Objective of preference optimisation: the loss of each pair of answers relative to the reference policy.

use super::{Config, PreferenceMetrics, answer_logprobs};
use crate::error::Result;
use crate::model::Tokens;
use crate::task::lm_tokenize::next_token_ids;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{
    LossAndGradient, LossContext, MaskingSeed, MicroBatch, Objective, ObjectiveContext, PairLogProbs,
    ReferenceObjective, gather,
};
use std::sync::Arc;

/// A chosen and a rejected answer per example.
#[derive(Debug, Clone)]
pub struct PreferenceObjective {
    pub config: Config,
    /// Tokens of the answers.
    pub answer_lengths: Vec<[usize; 2]>,
    pub reference_logprobs: Vec<PairLogProbs>,
}

impl PreferenceObjective {
    /// Without reference log-probabilities.
    pub fn new(context: &ObjectiveContext, config: &Config) -> Self {
        let answer_lengths = |sequences: &Vec<Arc<Tokens>>| {
            [0, 1].map(|answer| sequences.get(answer).map_or(0, |tokens| tokens.target_positions.len()))
        };
        Self {
            config: config.clone(),
            answer_lengths: context.tokens.iter().map(answer_lengths).collect(),
            reference_logprobs: vec![[0.0; 2]; context.examples.len()],
        }
    }
}

impl Objective for PreferenceObjective {
    fn example_count(&self) -> usize {
        self.answer_lengths.len()
    }

    fn row_count(&self, example: usize) -> usize {
        self.answer_lengths[example].iter().sum()
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        let token_losses = context.token_losses(batch.label_ids)?;
        let (mut weights, mut loss) = (Vec::with_capacity(batch.label_ids.len()), 0.0);
        let mut losses = token_losses.losses.iter();
        for example in batch.examples {
            let lengths = self.answer_lengths[*example];
            let policy = lengths.map(|length| -losses.by_ref().take(length).sum::<f64>());
            let pair_loss = self.config.pair_loss(policy, self.reference_logprobs[*example], lengths);
            loss += pair_loss.loss;
            // The log-probability of an answer is minus the sum of its token losses.
            let weight = pair_loss.gradient.map(|gradient| -gradient / denominator);
            weights.extend(lengths.iter().zip(weight).flat_map(|(length, factor)| vec![factor; *length]));
        }
        context.weighted_token_loss(loss, token_losses, weights.into_iter())
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], _labels: &[String]) -> Box<dyn TaskMetrics> {
        let (lengths, reference) = (gather(&self.answer_lengths, examples), gather(&self.reference_logprobs, examples));
        Box::new(PreferenceMetrics::new(outputs, &lengths, &reference, &self.config))
    }

    fn prepare(
        &self,
        tokens: Vec<Arc<Tokens>>,
        _examples: &[usize],
        _seed: MaskingSeed,
    ) -> (Vec<Arc<Tokens>>, Vec<u32>) {
        let label_ids = tokens.iter().flat_map(|tokens| next_token_ids(tokens)).collect();
        (tokens, label_ids)
    }

    fn as_reference_objective(&self) -> Option<&dyn ReferenceObjective> {
        Some(self)
    }
}

impl ReferenceObjective for PreferenceObjective {
    fn reference_logprobs(&self, outputs: &[f32]) -> Vec<PairLogProbs> {
        answer_logprobs(outputs, &self.answer_lengths)
    }

    fn with_reference(&self, reference_logprobs: &[PairLogProbs]) -> Arc<dyn Objective> {
        Arc::new(Self { reference_logprobs: reference_logprobs.to_vec(), ..self.clone() })
    }
}
