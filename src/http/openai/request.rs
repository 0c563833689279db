//! What OpenAI's requests for chat and for completions have in common.

use crate::http::auth::Caller;
use crate::http::error::{Answer, Refusal};
use crate::http::state::State;
use crate::serving::{Started, Wish};
use crate::store::Reference;
use axum::http::StatusCode;
use espalier_core::error::{Error, Fault, Problem, Result};
use serde::Deserialize;
use utoipa::ToSchema;

/// One text, or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Stop {
    One(String),
    Several(Vec<String>),
}

impl Stop {
    pub fn list(stop: Option<Self>) -> Vec<String> {
        match stop {
            None => Vec::new(),
            Some(Self::One(stop)) => vec![stop],
            Some(Self::Several(stops)) => stops,
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
pub fn refuse(is_there: bool, field: &str, advice: &str) -> Result<()> {
    if !is_there {
        return Ok(());
    }
    let fault = Fault::at_pointer(format!("/{field}"), advice);
    Err(Error::Invalid(Problem::new("unsupported_field", format!("{field}: {advice}")).with_faults(vec![fault])))
}

/// Starts what a request asks of a model by name.
pub async fn start(state: &State, caller: &Caller, model: &str, wish: Wish) -> Answer<Started> {
    let reference = reference(state, model)?;
    state.serving.generate(&caller.owner, reference.as_ref(), wish).await.map_err(|error| match error {
        Error::NotFound(_) => unknown(model),
        other => other.into(),
    })
}

/// `None` is the base model.
pub fn reference(state: &State, model: &str) -> Answer<Option<Reference>> {
    match model == state.base.info().name {
        true => Ok(None),
        false => Reference::parse(model).map(Some).map_err(|_| unknown(model)),
    }
}

pub fn unknown(model: &str) -> Refusal {
    let detail = format!("there is no model \"{model}\": GET /v1/models lists those that there are");
    Refusal::new(StatusCode::NOT_FOUND, "model_not_found", detail)
}
