//! Request fields and model lookup of the OpenAI-compatible endpoints.

use crate::http::error::{ApiError, ApiResult};
use crate::http::state::AppState;
use crate::serving::generation::MaxTokens;
use crate::store::Reference;
use axum::http::StatusCode;
use espalier_core::error::{Error, Problem, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
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

/// Value of `max_tokens`: a number of tokens, or −1 for as many as the context leaves. A larger number means the same, because clients send
/// numbers that are larger than the context to ask for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimit(u32);

impl TokenLimit {
    pub fn get(self) -> u32 {
        self.0
    }

    /// For endpoints that may generate nothing.
    pub fn or_nothing(self) -> MaxTokens {
        MaxTokens::AtMost(self.0)
    }

    /// For endpoints that generate at least one token.
    ///
    /// # Errors
    /// `Invalid` with the place of the field if it is 0.
    pub fn at_least_one(self, field: &str) -> Result<MaxTokens> {
        match self.0 {
            0 => Err(Error::invalid_field(
                format!("/{field}"),
                "must be at least 1, or -1 for all that the context leaves",
            )),
            limit => Ok(MaxTokens::AtMost(limit)),
        }
    }
}

impl<'de> Deserialize<'de> for TokenLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            -1 => Ok(Self(u32::MAX)),
            limit @ 0.. => Ok(Self(u32::try_from(limit).unwrap_or(u32::MAX))),
            limit => Err(D::Error::custom(format!(
                "must be a number of tokens, or -1 for all that the context leaves, not {limit}"
            ))),
        }
    }
}

/// Error `unsupported_field` of a field, or of a value of it, that OpenAI supports and this server does not.
pub fn unsupported_field(pointer: &str, message: &str) -> Error {
    Error::Invalid(Problem::at_field("unsupported_field", pointer, message))
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
