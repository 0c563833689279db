//! Figures of a run: its metrics rows, and what a finished adapter says of itself.

use super::progress::MetricsRow;
use crate::task::calibration;
use crate::task::metrics::TaskMetrics;
use crate::task::targets::Targets;
use serde_json::{Value, json};

/// A split's outputs and what they say.
pub struct Evaluation {
    /// Of all examples, end to end.
    outputs: Vec<f32>,
    targets: Targets,
    labels: Vec<String>,
    pub metrics: TaskMetrics,
}

impl Evaluation {
    pub fn new(outputs: Vec<f32>, targets: Targets, labels: &[String]) -> Self {
        let figures = TaskMetrics::new(&outputs, &targets, labels);
        Self { outputs, targets, labels: labels.to_vec(), metrics: figures }
    }

    pub fn row(&self, step: u64) -> MetricsRow {
        MetricsRow { step, split: "validation".to_string(), metrics: self.metrics.scalars() }
    }

    /// What the logits of classes are divided by; 1 for everything else.
    pub fn temperature(&self) -> f32 {
        match self.targets.row_classes() {
            Some((classes, count)) if !classes.is_empty() => {
                calibration::fit_temperature(&self.outputs, count, &classes, 0.0)
            }
            _ => 1.0,
        }
    }

    /// Everything, for the adapter's card and its job.
    pub fn report(&self, temperature: f32) -> Value {
        let mut report = self.metrics.report(&self.labels);
        if let Some((classes, count)) = self.targets.row_classes() {
            let expected_calibration_error =
                |temperature| calibration::expected_calibration_error(&self.outputs, count, &classes, temperature);
            report["calibration"] = json!({
                "temperature": temperature,
                "expected_calibration_error_before": expected_calibration_error(1.0),
                "expected_calibration_error_after": expected_calibration_error(temperature),
            });
        }
        report
    }
}

pub fn train_row(step: u64, loss: f64, learning_rate: f64, gradient_norm: f64) -> MetricsRow {
    let metrics = json!({"loss": loss, "learning_rate": learning_rate, "gradient_norm": gradient_norm});
    MetricsRow { step, split: "train".to_string(), metrics }
}
