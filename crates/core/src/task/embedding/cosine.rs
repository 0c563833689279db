//! Cosine objective of embeddings: the cosine of a pair follows its similarity score (Reimers & Gurevych 2019).

use super::metrics::SimilarityMetrics;
use super::normalized_rows::{CosineGradient, NormalizedRows};
use crate::error::Result;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::{Example, Scale, Target};

/// Similarity score of each pair.
#[derive(Debug, Clone)]
pub struct SimilarityObjective {
    scores: Vec<f32>,
    scale: Scale,
}

impl SimilarityObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example without a score.
    pub fn new(context: &ObjectiveContext, task_type: &str) -> Result<Self> {
        let score = |example: &&Example| match example.target {
            Target::Score(score) => Ok(score as f32),
            _ => Err(example.wrong_target(task_type)),
        };
        let scores = context.examples.iter().map(score).collect::<Result<_>>()?;
        Ok(Self { scores, scale: Scale::IDENTITY })
    }
}

impl Objective for SimilarityObjective {
    fn example_count(&self) -> usize {
        self.scores.len()
    }

    fn row_count(&self, _example: usize) -> usize {
        2
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        let scores = gather(&self.scores, batch.examples);
        context.host_loss(denominator, |rows| squared_error(rows, &scores, self.scale))
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], _labels: &[String]) -> Box<dyn TaskMetrics> {
        let scores = gather(&self.scores, examples);
        let rows = NormalizedRows::new(outputs, 2 * scores.len());
        let cosines: Vec<f64> = (0..scores.len()).map(|pair| rows.cosine(2 * pair, 2 * pair + 1)).collect();
        let loss = squared_error(outputs, &scores, self.scale).0 / scores.len().max(1) as f64;
        let scores: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
        Box::new(SimilarityMetrics::new(&cosines, &scores, loss))
    }

    /// Fits the scale to the range of the training scores.
    fn fit(&mut self, training: &[usize]) {
        self.scale = Scale::cosine_range(training.iter().map(|example| self.scores[*example]));
    }
}

/// Sum over pairs of rows of (cosine − scaled score)², and its gradient with respect to the rows.
fn squared_error(rows: &[f32], scores: &[f32], scale: Scale) -> (f64, Vec<f64>) {
    let normalized = NormalizedRows::new(rows, 2 * scores.len());
    let mut gradient = CosineGradient::new(&normalized);
    let mut loss = 0.0;
    for (pair, score) in scores.iter().enumerate() {
        let difference = normalized.cosine(2 * pair, 2 * pair + 1) - scale.normalize(*score);
        loss += difference * difference;
        gradient.add_cosine(2 * pair, 2 * pair + 1, 2.0 * difference);
    }
    (loss, gradient.into_row_gradient())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::row_targets::assert_gradient;

    #[test]
    fn gradients_match_finite_differences() {
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25];
        let scale = Scale { mean: 2.0, deviation: 4.0 };
        assert_gradient(&outputs, 1e-3, |rows| squared_error(rows, &[3.0, -1.0], scale));
    }
}
