//! A split's outputs and what they say, whatever the task.

use super::{Classification, Confusion, PerClass, multi_label, regression};
use crate::task::calibration;
use crate::task::targets::Targets;
use serde_json::{Value, json};

/// The figures of one evaluation.
pub enum Figures {
    Classification { figures: Classification, confusion: Confusion },
    MultiLabel { figures: multi_label::MultiLabel, per_class: Vec<PerClass> },
    Regression(regression::Regression),
}

impl Figures {
    /// From `(examples, outputs)`, as the head gives them.
    pub fn new(outputs: &[f32], targets: &Targets, labels: &[String]) -> Self {
        match targets {
            Targets::Classes { classes, count } => {
                let confusion = Confusion::new(outputs, *count, classes);
                let figures = Classification {
                    examples: classes.len(),
                    loss: calibration::loss(outputs, *count, classes, 1.0),
                    accuracy: confusion.accuracy(),
                    macro_f1: confusion.macro_f1(labels),
                };
                Self::Classification { figures, confusion }
            }
            Targets::Sets { sets, count } => {
                let (figures, per_class) = multi_label::figures(outputs, *count, sets, labels);
                Self::MultiLabel { figures, per_class }
            }
            Targets::Values { values, scale } => {
                let predicted: Vec<f32> = outputs.iter().map(|output| scale.undo(*output)).collect();
                Self::Regression(regression::figures(&predicted, values))
            }
        }
    }

    pub fn loss(&self) -> f64 {
        match self {
            Self::Classification { figures, .. } => figures.loss,
            Self::MultiLabel { figures, .. } => figures.loss,
            Self::Regression(figures) => figures.loss,
        }
    }

    /// By the name of one of the task's metrics; higher is better.
    pub fn score(&self, metric: &str) -> f64 {
        let figures = self.row();
        match metric {
            "loss" => -self.loss(),
            "mean_absolute_error" => -figures[metric].as_f64().unwrap_or(f64::INFINITY),
            _ => figures[metric].as_f64().unwrap_or(f64::NEG_INFINITY),
        }
    }

    /// The figures that are single numbers, without the number of examples.
    pub fn row(&self) -> Value {
        let mut row = match self {
            Self::Classification { figures, .. } => json!(figures),
            Self::MultiLabel { figures, .. } => json!(figures),
            Self::Regression(figures) => json!(figures),
        };
        if let Some(fields) = row.as_object_mut() {
            fields.remove("examples");
        }
        row
    }

    /// Everything, for the adapter's card and its job.
    pub fn report(&self, labels: &[String]) -> Value {
        match self {
            Self::Classification { figures, confusion } => {
                let mut report = json!(figures);
                report["per_class"] = json!(confusion.per_class(labels));
                report["confusion_matrix"] = json!(confusion.counts);
                report
            }
            Self::MultiLabel { figures, per_class } => {
                let mut report = json!(figures);
                report["per_class"] = json!(per_class);
                report
            }
            Self::Regression(figures) => json!(figures),
        }
    }
}
