//! Cosine objective of embeddings: the cosine of a pair follows its similarity score (Reimers & Gurevych 2019).
//!
//! Cosines and their gradients are computed on the host: a batch has a few rows per example, and its
//! sum needs a fixed order.

use super::SimilarityMetrics;
use crate::error::Result;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::output_head::l2_norm;
use crate::task::value_range::ValueRange;
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

    /// Fits the scale to the range of the training scores. Outliers are clipped, so that one typing error does not decide it.
    fn fit(&mut self, training: &[usize]) {
        let range = ValueRange::new(training.iter().map(|example| f64::from(self.scores[*example])).collect());
        if let Some(range) = range {
            self.scores.iter_mut().for_each(|score| *score = range.clip(f64::from(*score)) as f32);
        }
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

/// Rows scaled to norm 1, and their original norms.
pub struct NormalizedRows {
    width: usize,
    rows: Vec<f32>,
    norms: Vec<f64>,
}

impl NormalizedRows {
    /// From `count` rows, concatenated.
    pub fn new(rows: &[f32], count: usize) -> Self {
        let width = rows.len() / count.max(1);
        let norms: Vec<f64> = rows.chunks_exact(width.max(1)).map(|row| l2_norm(row).max(1e-12)).collect();
        let rows_with_norms = rows.chunks_exact(width.max(1)).zip(&norms);
        let rows =
            rows_with_norms.flat_map(|(row, norm)| row.iter().map(move |value| (f64::from(*value) / norm) as f32));
        Self { width, rows: rows.collect(), norms }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.width..][..self.width]
    }

    pub fn cosine(&self, left: usize, right: usize) -> f64 {
        const LANES: usize = 16;
        let (one, other) = (self.row(left), self.row(right));
        let (chunks, remainder) = one.as_chunks::<LANES>();
        let (right_chunks, right_remainder) = other.as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for (one, other) in chunks.iter().zip(right_chunks) {
            for lane in 0..LANES {
                sums[lane] += one[lane] * other[lane];
            }
        }
        let rest = remainder.iter().zip(right_remainder).map(|(one, other)| one * other);
        sums.into_iter().chain(rest).map(f64::from).sum()
    }
}

/// Gradient with respect to rows of a sum of functions of their cosines.
pub struct CosineGradient<'a> {
    rows: &'a NormalizedRows,
    /// Gradient with respect to the normalized rows.
    unit_gradient: Vec<f64>,
}

impl<'a> CosineGradient<'a> {
    pub fn new(units: &'a NormalizedRows) -> Self {
        Self { rows: units, unit_gradient: vec![0.0; units.rows.len()] }
    }

    /// Adds `coefficient` times the gradient of a cosine.
    pub fn add_cosine(&mut self, one: usize, other: usize, coefficient: f64) {
        for (to, from) in [(one, other), (other, one)] {
            let sums = &mut self.unit_gradient[to * self.rows.width..][..self.rows.width];
            sums.iter_mut().zip(self.rows.row(from)).for_each(|(sum, value)| *sum += coefficient * f64::from(*value));
        }
    }

    /// Gradient with respect to the original rows.
    pub fn into_row_gradient(self) -> Vec<f64> {
        let (units, mut sums) = (self.rows, self.unit_gradient);
        for ((sums, row), length) in
            sums.chunks_exact_mut(units.width.max(1)).zip(units.rows.chunks_exact(units.width.max(1))).zip(&units.norms)
        {
            let projection: f64 = sums.iter().zip(row).map(|(sum, value)| sum * f64::from(*value)).sum();
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum = (*sum - projection * f64::from(*value)) / length);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::row_targets::assert_gradient;

    #[test]
    fn an_outlier_does_not_decide_the_scale() {
        let mut scores: Vec<f32> = (0..50).map(|index| (index % 6) as f32).collect();
        scores.push(5000.0);
        let training: Vec<usize> = (0..scores.len()).collect();
        let mut objective = SimilarityObjective { scores, scale: Scale::IDENTITY };
        objective.fit(&training);
        assert!(objective.scale.deviation < 6.0, "{:?}", objective.scale);
        objective.fit(&training[..50]);
        assert_eq!(objective.scale, Scale { mean: 0.0, deviation: 5.0 });
    }

    #[test]
    fn gradients_match_finite_differences() {
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25];
        let scale = Scale { mean: 2.0, deviation: 4.0 };
        assert_gradient(&outputs, 1e-3, |rows| squared_error(rows, &[3.0, -1.0], scale));
    }
}
