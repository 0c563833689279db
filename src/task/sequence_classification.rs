//! Sequence classification: one label for a text or a pair of texts, from any number of labels.

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
