//! Predictions of all tasks: the answer to one input of `POST /predict`.

use super::{Embedding, masked_language_model, regression, sequence_classification, token_classification};
use crate::model::BaseModel;
use serde::Serialize;
use utoipa::ToSchema;

/// Prediction for one input.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Prediction {
    Classification(sequence_classification::Prediction),
    MultiLabel(sequence_classification::MultiLabelPrediction),
    Regression(regression::Prediction),
    TokenClassification(token_classification::Prediction),
    MaskedLanguageModel(masked_language_model::Prediction),
    Embedding(Embedding),
}

/// What a prediction depends on besides the outputs and the input.
pub struct PostprocessContext<'a> {
    pub base: &'a BaseModel,
    /// Labels of the adapter, in the order of the head's rows.
    pub labels: &'a [String],
    /// Divides the logits before the softmax.
    pub temperature: f32,
    /// Most probable labels or tokens to list.
    pub top_k: usize,
    /// Whether the prediction contains the logits.
    pub include_logits: bool,
}
