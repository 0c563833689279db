//! Figures of a run: its metrics rows, and what a finished adapter says of itself.

use super::progress::Row;
use crate::task::calibration;
use crate::task::metrics::{Classification, Confusion};
use serde_json::{Value, json};

/// A split's logits and what they say.
pub struct Evaluated {
    /// `(examples, labels)`
    logits: Vec<f32>,
    targets: Vec<u32>,
    labels: Vec<String>,
    confusion: Confusion,
    pub figures: Classification,
}

impl Evaluated {
    pub fn new(logits: Vec<f32>, targets: Vec<u32>, labels: &[String]) -> Self {
        let confusion = Confusion::new(&logits, labels.len(), &targets);
        let figures = Classification {
            examples: targets.len(),
            loss: calibration::loss(&logits, labels.len(), &targets, 1.0),
            accuracy: confusion.accuracy(),
            macro_f1: confusion.macro_f1(labels),
        };
        Self { logits, targets, labels: labels.to_vec(), confusion, figures }
    }

    /// Higher is better.
    pub fn score(&self, metric: &str) -> f64 {
        match metric {
            "loss" => -self.figures.loss,
            "macro_f1" => self.figures.macro_f1,
            _ => self.figures.accuracy,
        }
    }

    pub fn row(&self, step: u64) -> Row {
        let figures = &self.figures;
        let metrics = json!({"loss": figures.loss, "accuracy": figures.accuracy, "macro_f1": figures.macro_f1});
        Row { step, split: "validation".to_string(), metrics }
    }

    pub fn temperature(&self) -> f32 {
        calibration::fit_temperature(&self.logits, self.labels.len(), &self.targets, 0.0)
    }

    /// Everything, for the adapter's card and its job.
    pub fn report(&self, temperature: f32) -> Value {
        let error =
            |temperature| calibration::expected_error(&self.logits, self.labels.len(), &self.targets, temperature);
        json!({
            "examples": self.figures.examples,
            "loss": self.figures.loss,
            "accuracy": self.figures.accuracy,
            "macro_f1": self.figures.macro_f1,
            "per_class": self.confusion.per_class(&self.labels),
            "confusion_matrix": self.confusion.counts,
            "calibration": {
                "temperature": temperature,
                "expected_calibration_error_before": error(1.0),
                "expected_calibration_error_after": error(temperature),
            },
        })
    }
}

pub fn train_row(step: u64, loss: f64, learning_rate: f64, gradient_norm: f64) -> Row {
    let metrics = json!({"loss": loss, "learning_rate": learning_rate, "gradient_norm": gradient_norm});
    Row { step, split: "train".to_string(), metrics }
}
