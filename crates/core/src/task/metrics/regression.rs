//! Figures of a regression: errors, explained variance, and correlations.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Regression {
    pub examples: usize,
    /// Mean squared error.
    pub loss: f64,
    pub mean_absolute_error: f64,
    /// 1 − squared error over that of the mean.
    pub r2: f64,
    /// 0 where one side does not vary.
    pub pearson: f64,
    /// Pearson's of the ranks, ties sharing theirs.
    pub spearman: f64,
}

pub fn compute(predicted: &[f32], actual: &[f32]) -> Regression {
    let predicted: Vec<f64> = predicted.iter().map(|value| f64::from(*value)).collect();
    let actual: Vec<f64> = actual.iter().map(|value| f64::from(*value)).collect();
    let count = actual.len().max(1) as f64;
    let differences = || predicted.iter().zip(&actual).map(|(predicted, meant)| predicted - meant);
    let squared_error: f64 = differences().map(|difference| difference * difference).sum();
    let mean = actual.iter().sum::<f64>() / count;
    let total_variation: f64 = actual.iter().map(|value| (value - mean).powi(2)).sum();
    Regression {
        examples: actual.len(),
        loss: squared_error / count,
        mean_absolute_error: differences().map(f64::abs).sum::<f64>() / count,
        r2: if total_variation > 0.0 { 1.0 - squared_error / total_variation } else { 0.0 },
        pearson: pearson(&predicted, &actual),
        spearman: pearson(&ranks(&predicted), &ranks(&actual)),
    }
}

pub fn pearson(left: &[f64], right: &[f64]) -> f64 {
    let count = left.len().max(1) as f64;
    let (mean, right_mean) = (left.iter().sum::<f64>() / count, right.iter().sum::<f64>() / count);
    let (mut covariance, mut left_variance, mut right_variance) = (0.0, 0.0, 0.0);
    for (a, b) in left.iter().zip(right) {
        let (a, b) = (a - mean, b - right_mean);
        covariance += a * b;
        left_variance += a * a;
        right_variance += b * b;
    }
    let denominator = (left_variance * right_variance).sqrt();
    if denominator > 0.0 { covariance / denominator } else { 0.0 }
}

/// From 1 on; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let shared = start as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|index| ranks[*index] = shared);
        start += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_match_scikit_learn_and_scipy() {
        // sklearn.metrics and scipy.stats on these numbers.
        let metrics = compute(&[2.5, 0.0, 2.0, 8.0, 2.0], &[3.0, -0.5, 2.0, 7.0, 4.0]);
        let expected = [1.1, 0.8, 0.817_880_795, 0.923_960_612, 0.820_782_682];
        let values = [metrics.loss, metrics.mean_absolute_error, metrics.r2, metrics.pearson, metrics.spearman];
        for (found, expected) in values.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn a_constant_side_has_no_correlation() {
        let metrics = compute(&[1.0, 1.0], &[1.0, 2.0]);
        assert_eq!((metrics.pearson, metrics.spearman), (0.0, 0.0));
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }
}
