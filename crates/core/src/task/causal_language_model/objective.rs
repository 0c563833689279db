//! Objective of causal language modelling: cross entropy of the next tokens.

use crate::error::Result;
use crate::model::Tokens;
use crate::task::lm_loss::LanguageModelMetrics;
use crate::task::lm_tokenize::next_token_ids;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MaskingSeed, MicroBatch, Objective};
use std::sync::Arc;

/// The tokens that follow the target positions.
#[derive(Debug, Clone)]
pub struct NextTokenObjective {
    /// Target positions of each example.
    pub token_counts: Vec<usize>,
}

impl Objective for NextTokenObjective {
    fn example_count(&self) -> usize {
        self.token_counts.len()
    }

    fn row_count(&self, example: usize) -> usize {
        self.token_counts[example]
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.token_loss(batch.label_ids, denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], _labels: &[String]) -> Box<dyn TaskMetrics> {
        Box::new(LanguageModelMetrics::new(outputs, examples.len()))
    }

    fn loss_denominator(&self, examples: &[usize]) -> usize {
        examples.iter().map(|example| self.token_counts[*example]).sum()
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
}
