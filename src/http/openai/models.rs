//! `GET /v1/models`: the base model, and every adapter that goes on with text.

use super::request::{reference, unknown};
use crate::http::auth::Caller;
use crate::http::error::Answer;
use crate::http::responses::NotFound;
use crate::http::state::State;
use crate::store::{Adapter, Page};
use axum::Json;
use axum::extract::Path;
use espalier_core::error::Error;
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"object": "list", "data": [
    {"id": "support-answers", "object": "model", "created": 1767605400, "owned_by": "adapter"}
]}))]
pub struct Models {
    /// `list`
    pub object: &'static str,
    pub data: Vec<Model>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "support-answers", "object": "model", "created": 1767605400, "owned_by": "adapter"}))]
pub struct Model {
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// Seconds since 1970; 0 for the base model.
    pub created: i64,
    pub owned_by: String,
}

impl Model {
    fn base(state: &State) -> Self {
        Self { id: state.base.info().name.clone(), object: "model", created: 0, owned_by: "base".to_string() }
    }

    fn of(adapter: &Adapter) -> Self {
        let id = adapter.name.clone().unwrap_or_else(|| adapter.id.to_string());
        Self { id, object: "model", created: adapter.created_at.timestamp(), owned_by: "adapter".to_string() }
    }
}

pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retrieve))
}

/// Models
///
/// The base model, and by their names the adapters that say what comes next.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "openai",
    responses((status = 200, description = "The models.", body = Models)),
)]
async fn list(state: State, caller: Caller) -> Answer<Json<Models>> {
    let mut data = if state.base.info().generates { vec![Model::base(&state)] } else { Vec::new() };
    let (mut after, mut seen) = (None, BTreeSet::new());
    loop {
        let limit = state.settings.max_page;
        let page = state.store.adapters(&caller.owner, Page { limit, after }).await?;
        after = page.last().map(|adapter| adapter.id);
        let is_last = page.len() < limit as usize;
        let generating = page.iter().filter(|one| one.description.task.generates());
        // A name's newest adapter comes first, and is the one that it points to.
        data.extend(generating.map(Model::of).filter(|model| seen.insert(model.id.clone())));
        if is_last {
            return Ok(Json(Models { object: "list", data }));
        }
    }
}

/// A model
///
/// By the base's name, or an adapter's name, id or `name@version`.
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "get_model", tag = "openai",
    params(("model" = String, Path, description = "As in the list; a slash in it is written %2F.")),
    responses((status = 200, description = "The model.", body = Model), NotFound),
)]
async fn retrieve(state: State, caller: Caller, Path(model): Path<String>) -> Answer<Json<Model>> {
    match reference(&state, &model)? {
        None => Ok(Json(Model::base(&state))),
        Some(reference) => {
            let found = state.store.adapter(&caller.owner, &reference).await.map_err(|error| match error {
                Error::NotFound(_) => unknown(&model),
                other => other.into(),
            })?;
            match found.description.task.generates() {
                true => Ok(Json(Model { id: model, ..Model::of(&found) })),
                false => Err(unknown(&model)),
            }
        }
    }
}
