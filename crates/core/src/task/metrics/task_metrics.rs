//! A split's outputs and what they say, whatever the task.

use super::embedding::{self, Retrieval, Similarity};
use super::language_model::{self, LanguageModel};
use super::preference::{self, PreferenceMetrics};
use super::token_classification::{self, TokenClassification};
use super::{Classification, Confusion, PerClass, multi_label, regression};
use crate::task::calibration;
use crate::task::targets::{Targets, contrastive};
use serde_json::{Value, json};

/// The figures of one evaluation.
pub enum TaskMetrics {
    Classification { metrics: Classification, confusion: Confusion },
    MultiLabel { metrics: multi_label::MultiLabel, per_class: Vec<PerClass> },
    Regression(regression::Regression),
    TokenClassification { metrics: TokenClassification, per_class: Vec<PerClass> },
    Similarity(Similarity),
    Retrieval(Retrieval),
    LanguageModel(LanguageModel),
    Preference(PreferenceMetrics),
}

/// Whether the lower of two figures is the better one.
pub fn is_lower_better(metric: &str) -> bool {
    matches!(metric, "loss" | "mean_absolute_error" | "perplexity")
}

impl TaskMetrics {
    /// From the outputs of all examples end to end: as the head gives them, the texts' rows, or how tokens were judged.
    pub fn new(outputs: &[f32], targets: &Targets, labels: &[String]) -> Self {
        match targets {
            Targets::Classes { classes, class_count: count } => {
                let confusion = Confusion::new(outputs, *count, classes);
                let metrics = Classification {
                    examples: classes.len(),
                    loss: calibration::cross_entropy(outputs, *count, classes, 1.0),
                    accuracy: confusion.accuracy(),
                    macro_f1: confusion.macro_f1(labels),
                };
                Self::Classification { metrics, confusion }
            }
            Targets::LabelSets { sets, label_count: count } => {
                let (metrics, per_class) = multi_label::compute(outputs, *count, sets, labels);
                Self::MultiLabel { metrics, per_class }
            }
            Targets::Values { values, scale } => {
                let predicted: Vec<f32> = outputs.iter().map(|output| scale.denormalize(*output)).collect();
                Self::Regression(regression::compute(&predicted, values))
            }
            Targets::Tags { tags, word_counts: read, .. } => {
                let (metrics, per_class) = token_classification::compute(outputs, tags, read, labels);
                Self::TokenClassification { metrics, per_class }
            }
            Targets::SimilarityScores { scores, scale } => {
                let normalized = contrastive::NormalizedRows::new(outputs, 2 * scores.len());
                let cosines: Vec<f64> =
                    (0..scores.len()).map(|pair| normalized.cosine(2 * pair, 2 * pair + 1)).collect();
                let loss = contrastive::cosine_squared_error(outputs, scores, *scale).0 / scores.len().max(1) as f64;
                let scores: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
                Self::Similarity(embedding::similarity(&cosines, &scores, loss))
            }
            Targets::PreferencePairs { answer_lengths: lengths, reference_logprobs: reference, config } => {
                Self::Preference(preference::compute(outputs, lengths, reference, config))
            }
            Targets::LmTokens { token_counts: counts } => {
                Self::LanguageModel(language_model::compute(outputs, counts.len()))
            }
            Targets::ContrastivePairs { text_ids: texts, positives: belonging } => {
                let ranks = contrastive::ContrastiveBatch::new(texts, belonging).ranks(outputs);
                Self::Retrieval(embedding::retrieval(&ranks, contrastive::eval_loss(outputs, texts, belonging)))
            }
        }
    }

    pub fn loss(&self) -> f64 {
        match self {
            Self::Classification { metrics: figures, .. } => figures.loss,
            Self::MultiLabel { metrics: figures, .. } => figures.loss,
            Self::Regression(figures) => figures.loss,
            Self::TokenClassification { metrics: figures, .. } => figures.loss,
            Self::Similarity(figures) => figures.loss,
            Self::Retrieval(figures) => figures.loss,
            Self::LanguageModel(figures) => figures.loss,
            Self::Preference(figures) => figures.loss,
        }
    }

    /// By the name of one of the task's metrics; higher is better.
    pub fn score(&self, metric: &str) -> f64 {
        let scalars = self.scalars();
        match metric {
            "loss" => -self.loss(),
            metric if is_lower_better(metric) => -scalars[metric].as_f64().unwrap_or(f64::INFINITY),
            _ => scalars[metric].as_f64().unwrap_or(f64::NEG_INFINITY),
        }
    }

    /// The figures that are single numbers, without the number of examples.
    pub fn scalars(&self) -> Value {
        let mut row = self.to_json();
        if let Some(fields) = row.as_object_mut() {
            fields.remove("examples");
        }
        row
    }

    /// Everything, for the adapter's card and its job.
    pub fn report(&self, labels: &[String]) -> Value {
        let mut report = self.to_json();
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
    fn to_json(&self) -> Value {
        match self {
            Self::Classification { metrics: figures, .. } => json!(figures),
            Self::MultiLabel { metrics: figures, .. } => json!(figures),
            Self::Regression(figures) => json!(figures),
            Self::TokenClassification { metrics: figures, .. } => json!(figures),
            Self::Similarity(figures) => json!(figures),
            Self::Retrieval(figures) => json!(figures),
            Self::LanguageModel(figures) => json!(figures),
            Self::Preference(figures) => json!(figures),
        }
    }
}
