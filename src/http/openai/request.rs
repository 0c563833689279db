//! Request fields and model lookup of the OpenAI-compatible endpoints.

use crate::http::error::{ApiError, ApiResult};
use crate::http::state::AppState;
use crate::store::Reference;
use axum::http::StatusCode;
use espalier_core::error::{Error, Problem};
use serde::Deserialize;
use utoipa::ToSchema;

/// One stop sequence, or a list.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StopSequences {
    One(String),
    Many(Vec<String>),
}

impl StopSequences {
    pub fn into_vec(stop: Option<Self>) -> Vec<String> {
        match stop {
            None => Vec::new(),
            Some(Self::One(stop)) => vec![stop],
            Some(Self::Many(stops)) => stops,
        }
    }
}

/// Error `unsupported_field` of a field, or of a value of it, that OpenAI supports and this server does not.
pub fn unsupported_field(field: &str, message: &str) -> Error {
    Error::Invalid(Problem::at_field("unsupported_field", format!("/{field}"), message))
}

/// Resolves the field `model`; `None` is the base model.
///
/// # Errors
/// `model_not_found` if it is neither the base model's name nor a valid adapter reference.
pub fn resolve_model(state: &AppState, model: &str) -> ApiResult<Option<Reference>> {
    match model == state.base.info().name {
        true => Ok(None),
        false => Reference::parse(model).map(Some).map_err(|_| model_not_found(model)),
    }
}

/// Names the model in the error of an adapter that does not exist; other errors are converted.
pub fn name_missing_model(error: Error, model: &str, convert: impl FnOnce(Error) -> ApiError) -> ApiError {
    match error {
        Error::NotFound(_) => model_not_found(model),
        other => convert(other),
    }
}

pub fn model_not_found(model: &str) -> ApiError {
    let detail = format!("there is no model \"{model}\": GET /v1/models lists those that there are");
    ApiError::new(StatusCode::NOT_FOUND, "model_not_found", detail)
}
