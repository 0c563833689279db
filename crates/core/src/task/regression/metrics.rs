//! Metrics of a regression: errors, explained variance and correlations.

use crate::task::confidence::{Interval, correlation_intervals};
use crate::task::metrics::{TaskMetrics, pearson, spearman};
use serde::Serialize;
use serde_json::{Value, json};

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Metrics of a regression.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegressionMetrics {
    pub examples: usize,
    /// Examples that the metrics leave out, because their values are far outside of the range of the training values.
    #[serde(skip_serializing_if = "is_zero")]
    pub outliers: usize,
    /// Mean squared error.
    pub loss: f64,
    pub mean_absolute_error: f64,
    /// 1 − squared error / squared error of the mean.
    pub r2: f64,
    /// 0 where one side is constant.
    pub pearson: f64,
    pub spearman: f64,
}

impl RegressionMetrics {
    pub fn new(predicted: &[f32], actual: &[f32]) -> Self {
        let predicted: Vec<f64> = predicted.iter().map(|value| f64::from(*value)).collect();
        let actual: Vec<f64> = actual.iter().map(|value| f64::from(*value)).collect();
        let count = actual.len().max(1) as f64;
        let differences = || predicted.iter().zip(&actual).map(|(predicted, actual)| predicted - actual);
        let squared_error: f64 = differences().map(|difference| difference * difference).sum();
        let mean = actual.iter().sum::<f64>() / count;
        let total_variation: f64 = actual.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            examples: actual.len(),
            outliers: 0,
            loss: squared_error / count,
            mean_absolute_error: differences().map(f64::abs).sum::<f64>() / count,
            r2: if total_variation > 0.0 { 1.0 - squared_error / total_variation } else { 0.0 },
            pearson: pearson(&predicted, &actual),
            spearman: spearman(&predicted, &actual),
        }
    }
}

impl TaskMetrics for RegressionMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }

    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        correlation_intervals(self.pearson, self.spearman, self.examples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_match_scikit_learn_and_scipy() {
        // Computed by sklearn.metrics and scipy.stats.
        let metrics = RegressionMetrics::new(&[2.5, 0.0, 2.0, 8.0, 2.0], &[3.0, -0.5, 2.0, 7.0, 4.0]);
        let expected = [1.1, 0.8, 0.817_880_795, 0.923_960_612, 0.820_782_682];
        let values = [metrics.loss, metrics.mean_absolute_error, metrics.r2, metrics.pearson, metrics.spearman];
        for (found, expected) in values.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn constant_values_have_no_correlation() {
        let metrics = RegressionMetrics::new(&[1.0, 1.0], &[1.0, 2.0]);
        assert_eq!((metrics.pearson, metrics.spearman), (0.0, 0.0));
    }
}
