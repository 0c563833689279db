//! Sequence classification: one label, or with `multi_label` any number of them, for a text or a pair of texts.

use super::{calibration, head};
use crate::model::Pooling;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SequenceClassification)]
pub struct Config {
    /// How a sequence becomes one row; the base's own default where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// The head's layers; where it is left out, those of the base's own head for `cls`, else one linear map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<head::Config>,
    /// Any number of labels for a text, also none, instead of exactly one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub multi_label: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The most probable label, its calibrated probability, and on demand the runners-up and the raw logits.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Classification)]
pub struct Prediction {
    pub label: String,
    pub score: f32,
    pub top: Vec<Scored>,
    /// In the order of the adapter's labels, before the temperature; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Scored {
    pub label: String,
    pub score: f32,
}

/// Names and calibrates one row of logits.
pub fn postprocess(labels: &[String], temperature: f32, logits: &[f32], top_k: usize) -> Prediction {
    let probabilities = calibration::softmax(logits, temperature);
    let mut order: Vec<usize> = (0..labels.len()).collect();
    // Ties go to the earlier label, as in `argmax`.
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]).then(a.cmp(b)));
    let scored_label = |index: &usize| Scored { label: labels[*index].clone(), score: probabilities[*index] as f32 };
    let top: Vec<Scored> = order.iter().take(top_k.max(1)).map(scored_label).collect();
    Prediction { label: top[0].label.clone(), score: top[0].score, top, logits: None }
}

/// The labels that are more likely than not, the most likely first; on demand the raw logits.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Labels)]
pub struct MultiLabelPrediction {
    pub labels: Vec<Scored>,
    /// In the order of the adapter's labels; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// Names one row of logits, each label for itself.
pub fn postprocess_multi_label(labels: &[String], logits: &[f32]) -> MultiLabelPrediction {
    let mut selected: Vec<(&String, f32)> =
        labels.iter().zip(logits.iter().copied()).filter(|(_, logit)| *logit > 0.0).collect();
    selected.sort_by(|a, b| b.1.total_cmp(&a.1));
    let scored_label =
        |(label, logit): (&String, f32)| Scored { label: label.clone(), score: 1.0 / (1.0 + (-logit).exp()) };
    MultiLabelPrediction { labels: selected.into_iter().map(scored_label).collect(), logits: None }
}
