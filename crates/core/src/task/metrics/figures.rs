//! A split's outputs and what they say, whatever the task.

use super::embedding::{self, Retrieval, Similarity};
use super::language::{self, Language};
use super::preference::{self, Preference};
use super::token_classification::{self, TokenClassification};
use super::{Classification, Confusion, PerClass, multi_label, regression};
use crate::task::calibration;
use crate::task::targets::{Targets, similar};
use serde_json::{Value, json};

/// The figures of one evaluation.
pub enum Figures {
    Classification { figures: Classification, confusion: Confusion },
    MultiLabel { figures: multi_label::MultiLabel, per_class: Vec<PerClass> },
    Regression(regression::Regression),
    TokenClassification { figures: TokenClassification, per_class: Vec<PerClass> },
    Similarity(Similarity),
    Retrieval(Retrieval),
    Language(Language),
    Preference(Preference),
}

/// Whether the lower of two figures is the better one.
pub fn is_error(metric: &str) -> bool {
    matches!(metric, "loss" | "mean_absolute_error" | "perplexity")
}

impl Figures {
    /// From the outputs of all examples end to end: as the head gives them, the texts' rows, or how tokens were judged.
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
            Targets::Tags { tags, read, .. } => {
                let (figures, per_class) = token_classification::figures(outputs, tags, read, labels);
                Self::TokenClassification { figures, per_class }
            }
            Targets::Scores { scores, scale } => {
                let units = similar::Units::of(outputs, 2 * scores.len());
                let cosines: Vec<f64> = (0..scores.len()).map(|pair| units.cosine(2 * pair, 2 * pair + 1)).collect();
                let loss = similar::scored(outputs, scores, *scale).0 / scores.len().max(1) as f64;
                let scores: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
                Self::Similarity(embedding::similarity(&cosines, &scores, loss))
            }
            Targets::Preferred { lengths, reference, config } => {
                Self::Preference(preference::figures(outputs, lengths, reference, config))
            }
            Targets::Words { counts } => Self::Language(language::figures(outputs, counts.len())),
            Targets::Ranked { texts, belonging } => {
                let places = similar::Ranked::new(texts, belonging).places(outputs);
                Self::Retrieval(embedding::retrieval(&places, similar::measured(outputs, texts, belonging)))
            }
        }
    }

    pub fn loss(&self) -> f64 {
        match self {
            Self::Classification { figures, .. } => figures.loss,
            Self::MultiLabel { figures, .. } => figures.loss,
            Self::Regression(figures) => figures.loss,
            Self::TokenClassification { figures, .. } => figures.loss,
            Self::Similarity(figures) => figures.loss,
            Self::Retrieval(figures) => figures.loss,
            Self::Language(figures) => figures.loss,
            Self::Preference(figures) => figures.loss,
        }
    }

    /// By the name of one of the task's metrics; higher is better.
    pub fn score(&self, metric: &str) -> f64 {
        let figures = self.row();
        match metric {
            "loss" => -self.loss(),
            metric if is_error(metric) => -figures[metric].as_f64().unwrap_or(f64::INFINITY),
            _ => figures[metric].as_f64().unwrap_or(f64::NEG_INFINITY),
        }
    }

    /// The figures that are single numbers, without the number of examples.
    pub fn row(&self) -> Value {
        let mut row = self.all();
        if let Some(fields) = row.as_object_mut() {
            fields.remove("examples");
        }
        row
    }

    /// Everything, for the adapter's card and its job.
    pub fn report(&self, labels: &[String]) -> Value {
        let mut report = self.all();
        match self {
            Self::Classification { confusion, .. } => {
                report["per_class"] = json!(confusion.per_class(labels));
                match confusion.matrix() {
                    Some(matrix) => report["confusion_matrix"] = json!(matrix),
                    None => report["confused"] = json!(confusion.most_confused(labels)),
                }
            }
            Self::MultiLabel { per_class, .. } | Self::TokenClassification { per_class, .. } => {
                report["per_class"] = json!(per_class);
            }
            _ => {}
        }
        report
    }

    /// Those that are single numbers.
    fn all(&self) -> Value {
        match self {
            Self::Classification { figures, .. } => json!(figures),
            Self::MultiLabel { figures, .. } => json!(figures),
            Self::Regression(figures) => json!(figures),
            Self::TokenClassification { figures, .. } => json!(figures),
            Self::Similarity(figures) => json!(figures),
            Self::Retrieval(figures) => json!(figures),
            Self::Language(figures) => json!(figures),
            Self::Preference(figures) => json!(figures),
        }
    }
}
