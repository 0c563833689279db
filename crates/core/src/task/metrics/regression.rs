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

pub fn figures(predicted: &[f32], meant: &[f32]) -> Regression {
    let predicted: Vec<f64> = predicted.iter().map(|value| f64::from(*value)).collect();
    let meant: Vec<f64> = meant.iter().map(|value| f64::from(*value)).collect();
    let count = meant.len().max(1) as f64;
    let differences = || predicted.iter().zip(&meant).map(|(predicted, meant)| predicted - meant);
    let squared: f64 = differences().map(|difference| difference * difference).sum();
    let mean = meant.iter().sum::<f64>() / count;
    let spread: f64 = meant.iter().map(|value| (value - mean).powi(2)).sum();
    Regression {
        examples: meant.len(),
        loss: squared / count,
        mean_absolute_error: differences().map(f64::abs).sum::<f64>() / count,
        r2: if spread > 0.0 { 1.0 - squared / spread } else { 0.0 },
        pearson: pearson(&predicted, &meant),
        spearman: pearson(&ranks(&predicted), &ranks(&meant)),
    }
}

pub fn pearson(one: &[f64], other: &[f64]) -> f64 {
    let count = one.len().max(1) as f64;
    let (mean, other_mean) = (one.iter().sum::<f64>() / count, other.iter().sum::<f64>() / count);
    let (mut along, mut spread, mut other_spread) = (0.0, 0.0, 0.0);
    for (a, b) in one.iter().zip(other) {
        let (a, b) = (a - mean, b - other_mean);
        along += a * b;
        spread += a * a;
        other_spread += b * b;
    }
    let joint = (spread * other_spread).sqrt();
    if joint > 0.0 { along / joint } else { 0.0 }
}

/// From 1 on; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let shared = first as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|index| ranks[*index] = shared);
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_agree_with_scikit_learn_and_scipy() {
        // sklearn.metrics and scipy.stats on these numbers.
        let found = figures(&[2.5, 0.0, 2.0, 8.0, 2.0], &[3.0, -0.5, 2.0, 7.0, 4.0]);
        let expected = [1.1, 0.8, 0.817_880_795, 0.923_960_612, 0.820_782_682];
        let all = [found.loss, found.mean_absolute_error, found.r2, found.pearson, found.spearman];
        for (found, expected) in all.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{all:?}");
        }
    }

    #[test]
    fn what_does_not_vary_has_no_correlation() {
        let found = figures(&[1.0, 1.0], &[1.0, 2.0]);
        assert_eq!((found.pearson, found.spearman), (0.0, 0.0));
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }
}
