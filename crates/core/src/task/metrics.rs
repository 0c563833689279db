//! Metrics of an evaluation, and what the tasks' metrics have in common. They are defined as in scikit-learn, seqeval and SciPy.

use super::confidence::Interval;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Metrics of one evaluation.
pub trait TaskMetrics {
    fn loss(&self) -> f64;

    /// Metrics that are single numbers, with the number of examples.
    fn to_json(&self) -> Value;

    /// Adds tables, such as the metrics per class, to the adapter's report.
    fn add_details(&self, _labels: &[String], _report: &mut Value) {}

    /// Confidence intervals of metrics, by name; `None` where there are too few examples.
    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        Vec::new()
    }
}

impl dyn TaskMetrics {
    /// Value of a metric with the sign that makes higher better.
    pub fn score(&self, metric: &str) -> f64 {
        let scalars = self.scalars();
        match metric {
            "loss" => -self.loss(),
            metric if is_lower_better(metric) => -scalars[metric].as_f64().unwrap_or(f64::INFINITY),
            _ => scalars[metric].as_f64().unwrap_or(f64::NEG_INFINITY),
        }
    }

    /// Metrics that are single numbers, without numbers of examples.
    pub fn scalars(&self) -> Value {
        let mut row = self.to_json();
        if let Some(fields) = row.as_object_mut() {
            fields.remove("examples");
            fields.remove("outliers");
        }
        row
    }

    /// All metrics, for the adapter and its job.
    pub fn report(&self, labels: &[String]) -> Value {
        let mut report = self.to_json();
        self.add_details(labels, &mut report);
        let intervals: BTreeMap<_, _> =
            self.intervals().into_iter().filter_map(|(metric, interval)| Some((metric, interval?))).collect();
        if !intervals.is_empty() {
            report["confidence_intervals"] = json!(intervals);
        }
        report
    }
}

/// Whether the lower of two values of a metric is the better one.
pub fn is_lower_better(metric: &str) -> bool {
    matches!(metric, "loss" | "mean_absolute_error" | "perplexity")
}

/// Metrics of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerClass {
    pub label: String,
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Examples of this class.
    pub support: usize,
}

impl PerClass {
    /// From the numbers of correct predictions, of all predictions, and of all examples of the class.
    pub fn new(label: &str, correct: usize, predicted: usize, support: usize) -> Self {
        Self {
            label: label.to_string(),
            precision: ratio_or_zero(correct, predicted),
            recall: ratio_or_zero(correct, support),
            f1: ratio_or_zero(2 * correct, predicted + support),
            support,
        }
    }
}

/// Mean F1 of the classes that occur.
pub fn macro_f1(per_class: &[PerClass]) -> f64 {
    let f1: Vec<f64> = per_class.iter().filter(|class| class.support > 0).map(|class| class.f1).collect();
    f1.iter().sum::<f64>() / f1.len().max(1) as f64
}

/// 0 / 0 is 0, as in scikit-learn.
pub fn ratio_or_zero(numerator: usize, denominator: usize) -> f64 {
    match denominator {
        0 => 0.0,
        denominator => numerator as f64 / denominator as f64,
    }
}

/// Index of the first largest logit.
pub fn argmax(logits: &[f32]) -> usize {
    logits.iter().enumerate().fold(0, |best, (index, logit)| if *logit > logits[best] { index } else { best })
}

/// Pearson correlation; 0 where one side is constant.
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

/// Spearman correlation: Pearson's of the ranks.
pub fn spearman(left: &[f64], right: &[f64]) -> f64 {
    pearson(&ranks(left), &ranks(right))
}

/// Ranks from 1 on; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
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
    fn equal_values_share_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }
}
