//! What OpenAI's requests for chat and for completions have in common.

use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::state::AppState;
use crate::serving::{GenerationRequest, RunningGeneration};
use crate::store::Reference;
use axum::http::StatusCode;
use espalier_core::error::{Error, FieldError, Problem, Result};
use serde::Deserialize;
use utoipa::ToSchema;

/// One text, or several.
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

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Whether a last frame tells the tokens.
    #[serde(default)]
    pub include_usage: bool,
}

/// Refuses a field of OpenAI's that is not done here.
pub fn reject_if(is_present: bool, field: &str, message: &str) -> Result<()> {
    if !is_present {
        return Ok(());
    }
    let field_error = FieldError::at_pointer(format!("/{field}"), message);
    Err(Error::Invalid(Problem::new("unsupported_field", format!("{field}: {message}")).with_errors(vec![field_error])))
}

/// Starts what a request asks of a model by name.
pub async fn start_generation(
    state: &AppState,
    caller: &Caller,
    model: &str,
    generation_request: GenerationRequest,
) -> ApiResult<RunningGeneration> {
    let reference = resolve_model(state, model)?;
    state.serving.generate(&caller.owner, reference.as_ref(), generation_request).await.map_err(|error| match error {
        Error::NotFound(_) => model_not_found(model),
        other => other.into(),
    })
}

/// `None` is the base model.
pub fn resolve_model(state: &AppState, model: &str) -> ApiResult<Option<Reference>> {
    match model == state.base.info().name {
        true => Ok(None),
        false => Reference::parse(model).map(Some).map_err(|_| model_not_found(model)),
    }
}

pub fn model_not_found(model: &str) -> ApiError {
    let detail = format!("there is no model \"{model}\": GET /v1/models lists those that there are");
    ApiError::new(StatusCode::NOT_FOUND, "model_not_found", detail)
}
