//! Figures of a run: its metrics rows, and what a finished adapter says of itself.

use super::progress::Row;
use crate::task::calibration;
use crate::task::metrics::Figures;
use crate::task::targets::Targets;
use serde_json::{Value, json};

/// A split's outputs and what they say.
pub struct Evaluated {
    /// Of all examples, end to end.
    outputs: Vec<f32>,
    targets: Targets,
    labels: Vec<String>,
    pub figures: Figures,
}

impl Evaluated {
    pub fn new(outputs: Vec<f32>, targets: Targets, labels: &[String]) -> Self {
        let figures = Figures::new(&outputs, &targets, labels);
        Self { outputs, targets, labels: labels.to_vec(), figures }
    }

    pub fn row(&self, step: u64) -> Row {
        Row { step, split: "validation".to_string(), metrics: self.figures.row() }
    }

    /// What the logits of classes are divided by; 1 for everything else.
    pub fn temperature(&self) -> f32 {
        match self.targets.classes() {
            Some((classes, count)) if !classes.is_empty() => {
                calibration::fit_temperature(&self.outputs, count, &classes, 0.0)
            }
            _ => 1.0,
        }
    }

    /// Everything, for the adapter's card and its job.
    pub fn report(&self, temperature: f32) -> Value {
        let mut report = self.figures.report(&self.labels);
        if let Some((classes, count)) = self.targets.classes() {
            let error = |temperature| calibration::expected_error(&self.outputs, count, &classes, temperature);
            report["calibration"] = json!({
                "temperature": temperature,
                "expected_calibration_error_before": error(1.0),
                "expected_calibration_error_after": error(temperature),
            });
        }
        report
    }
}

pub fn train_row(step: u64, loss: f64, learning_rate: f64, gradient_norm: f64) -> Row {
    let metrics = json!({"loss": loss, "learning_rate": learning_rate, "gradient_norm": gradient_norm});
    Row { step, split: "train".to_string(), metrics }
}
