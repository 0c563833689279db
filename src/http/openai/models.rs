//! `GET /v1/models`: the base model and the adapters that generate text.

use super::request::{model_not_found, name_missing_model, resolve_model};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::openapi::NotFound;
use crate::http::state::AppState;
use crate::store::{Adapter, PageRequest};
use axum::Json;
use axum::extract::Path;
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"object": "list", "data": [
    {"id": "support-answers", "object": "model", "created": 1767605400, "owned_by": "adapter"}
]}))]
pub struct ModelList {
    /// `list`
    pub object: &'static str,
    pub data: Vec<Model>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "support-answers", "object": "model", "created": 1767605400, "owned_by": "adapter"}))]
pub struct Model {
    /// Value of `model` in requests.
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// Seconds since 1970; 0 for the base model.
    pub created: i64,
    /// `base` or `adapter`.
    pub owned_by: String,
}

impl Model {
    fn base(state: &AppState) -> Self {
        Self { id: state.base.info().name.clone(), object: "model", created: 0, owned_by: "base".to_string() }
    }

    fn from_adapter(adapter: &Adapter) -> Self {
        let id = adapter.name.clone().unwrap_or_else(|| adapter.id.to_string());
        Self { id, object: "model", created: adapter.created_at.timestamp(), owned_by: "adapter".to_string() }
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_models)).routes(routes!(get_model))
}

/// List models
///
/// The base model, and the adapters that generate text by their names.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "openai",
    responses((status = 200, description = "Models that generate text.", body = ModelList)),
)]
async fn list_models(state: AppState, caller: Caller) -> ApiResult<Json<ModelList>> {
    let mut data = if state.base.info().is_causal_lm { vec![Model::base(&state)] } else { Vec::new() };
    let (mut after, mut seen_ids) = (None, BTreeSet::new());
    loop {
        let limit = state.settings.max_page_size;
        let page = state.store.adapters(&caller.owner, PageRequest { limit, after }).await?;
        after = page.last().map(|adapter| adapter.id);
        let is_last = page.len() < limit as usize;
        let causal_lm_adapters = page.iter().filter(|adapter| adapter.description.task.is_generative());
        // Adapters come newest first, and a name refers to its newest adapter.
        data.extend(causal_lm_adapters.map(Model::from_adapter).filter(|model| seen_ids.insert(model.id.clone())));
        if is_last {
            return Ok(Json(ModelList { object: "list", data }));
        }
    }
}

/// Get a model
///
/// By the base model's name, or an adapter's name, id or `name@version`.
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "get_model", tag = "openai",
    params(("model" = String, Path, description = "Model as in the list; a slash is written `%2F`.")),
    responses((status = 200, description = "The model.", body = Model), NotFound),
)]
async fn get_model(state: AppState, caller: Caller, Path(model): Path<String>) -> ApiResult<Json<Model>> {
    match resolve_model(&state, &model)? {
        None => Ok(Json(Model::base(&state))),
        Some(reference) => {
            let adapter = state.store.adapter(&caller.owner, &reference).await;
            let adapter = adapter.map_err(|error| name_missing_model(error, &model, Into::into))?;
            match adapter.description.task.is_generative() {
                true => Ok(Json(Model { id: model, ..Model::from_adapter(&adapter) })),
                false => Err(model_not_found(&model)),
            }
        }
    }
}
