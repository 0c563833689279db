//! Method of a fine-tuning job and its hyperparameters, as requests and jobs write them.

use crate::http::json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Method of a request. Objects of other types than `type` are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FineTuningMethod {
    /// `supervised` or `dpo`.
    #[serde(rename = "type")]
    pub method_type: String,
    #[serde(default, deserialize_with = "json::deserialize_object", skip_serializing_if = "Option::is_none")]
    pub supervised: Option<MethodSettings>,
    #[serde(default, deserialize_with = "json::deserialize_object", skip_serializing_if = "Option::is_none")]
    pub dpo: Option<MethodSettings>,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub reinforcement: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MethodSettings {
    #[serde(default, deserialize_with = "json::deserialize_object")]
    pub hyperparameters: Option<FineTuningHyperparameters>,
}

/// Numbers, or `auto` for the server's defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FineTuningHyperparameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub n_epochs: Option<AutoOr<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub batch_size: Option<AutoOr<u32>>,
    /// Factor of the method's default learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub learning_rate_multiplier: Option<AutoOr<f64>>,
    /// Of `dpo`: weight of the distance to the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub beta: Option<AutoOr<f64>>,
}

/// `"auto"` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, or \"auto\"")]
pub enum AutoOr<T> {
    Auto(Auto),
    Value(T),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    Auto,
}

impl<T: Copy> AutoOr<T> {
    /// The number; `None` for `auto` and where it is left out.
    pub fn value(setting: Option<Self>) -> Option<T> {
        match setting {
            Some(Self::Value(value)) => Some(value),
            Some(Self::Auto(_)) | None => None,
        }
    }
}
