//! Regression: a number for a text or a pair of texts.

use super::head;
use crate::model::Pooling;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Regression)]
pub struct Config {
    /// How a sequence becomes one row; the base's own default where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// The head's layers; where it is left out, those of the base's own head for `cls`, else one linear map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<head::Config>,
}

/// The number.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Number)]
pub struct Prediction {
    pub value: f32,
}
