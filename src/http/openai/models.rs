//! `GET /v1/models`: the base model and the adapters, with what each can do.

use super::relevant_labels::scores_relevance;
use super::request::{name_missing_model, resolve_model};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::openapi::NotFound;
use crate::http::state::AppState;
use crate::store::{Adapter, PageRequest};
use axum::Json;
use axum::extract::Path;
use espalier_core::model::BaseModelInfo;
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"object": "list", "data": [
    {"id": "support-answers", "object": "model", "created": 1767605400, "owned_by": "adapter",
        "root": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "parent": "SmolLM2-135M-Instruct", "max_model_len": 8192,
        "capabilities": ["chat", "responses", "completions"]}
]}))]
pub struct ModelList {
    /// `list`
    pub object: &'static str,
    pub data: Vec<Model>,
}

/// A model, with the fields of OpenAI and vLLM.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "support-answers", "object": "model", "created": 1767605400, "owned_by": "adapter",
    "root": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "parent": "SmolLM2-135M-Instruct", "max_model_len": 8192,
    "capabilities": ["chat", "responses", "completions"]}))]
pub struct Model {
    /// Value of `model` in requests.
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// Seconds since 1970; 0 for the base model.
    pub created: i64,
    /// `base` or `adapter`.
    pub owned_by: &'static str,
    /// Id of the adapter; the base model's name.
    pub root: String,
    /// Name of an adapter's base model; `null` for the base model.
    pub parent: Option<String>,
    /// Tokens of a prompt and its answer, or of an input.
    pub max_model_len: usize,
    /// What requests may use the model for.
    pub capabilities: Vec<Capability>,
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/responses`
    Responses,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/rerank`
    Rerank,
    /// `/predict`
    Predict,
}

impl Capability {
    fn of_base(base: &BaseModelInfo) -> Vec<Self> {
        let mut capabilities = if base.is_causal_lm { Self::of_generation(base) } else { Vec::new() };
        capabilities.extend([Self::Embeddings, Self::Rerank]);
        capabilities
    }

    fn of_generation(base: &BaseModelInfo) -> Vec<Self> {
        let chat = base.chat.then_some([Self::Chat, Self::Responses]);
        chat.into_iter().flatten().chain([Self::Completions]).collect()
    }

    fn of_adapter(base: &BaseModelInfo, adapter: &Adapter) -> Vec<Self> {
        let description = &adapter.description;
        if description.task.is_generative() {
            return Self::of_generation(base);
        }
        if description.task.type_name() == "embedding" {
            return vec![Self::Embeddings, Self::Rerank, Self::Predict];
        }
        let rerank = scores_relevance(description).then_some(Self::Rerank);
        rerank.into_iter().chain([Self::Predict]).collect()
    }
}

impl Model {
    fn base(base: &BaseModelInfo) -> Self {
        Self {
            id: base.name.clone(),
            object: "model",
            created: 0,
            owned_by: "base",
            root: base.name.clone(),
            parent: None,
            max_model_len: base.max_tokens,
            capabilities: Capability::of_base(base),
        }
    }

    pub fn from_adapter(base: &BaseModelInfo, adapter: &Adapter) -> Self {
        let description = &adapter.description;
        let max_length = match description.task.is_generative() {
            true => base.max_tokens.saturating_sub(description.method.num_virtual_tokens()),
            false => description.max_length.unwrap_or(base.max_tokens).min(base.max_tokens),
        };
        Self {
            id: adapter.name.clone().unwrap_or_else(|| adapter.id.to_string()),
            object: "model",
            created: adapter.created_at.timestamp(),
            owned_by: "adapter",
            root: adapter.id.to_string(),
            parent: Some(base.name.clone()),
            max_model_len: max_length,
            capabilities: Capability::of_adapter(base, adapter),
        }
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_models)).routes(routes!(get_model))
}

/// List models
///
/// The base model, and the adapters by their names.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "openai",
    responses((status = 200, description = "The base model and the adapters.", body = ModelList)),
)]
async fn list_models(state: AppState, caller: Caller) -> ApiResult<Json<ModelList>> {
    let base = state.base.info();
    let mut data = vec![Model::base(base)];
    let (mut after, mut seen_ids) = (None, BTreeSet::new());
    loop {
        let limit = state.settings.max_page_size;
        let page = state.store.adapters(&caller.owner, PageRequest { limit, after }).await?;
        after = page.last().map(|adapter| adapter.id);
        let is_last = page.len() < limit as usize;
        let page = page.iter().filter(|adapter| adapter.is_current || adapter.name.is_none());
        let page = page.filter(|adapter| caller.allows(&adapter.owner, adapter.name.as_deref()));
        let models = page.map(|adapter| Model::from_adapter(base, adapter));
        data.extend(models.filter(|model| seen_ids.insert(model.id.clone())));
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
    let base = state.base.info();
    match resolve_model(&state, &model)? {
        None => Ok(Json(Model::base(base))),
        Some(reference) => {
            let allowed = caller.check_adapter(state.store.as_ref(), &reference).await;
            allowed.map_err(|error| name_missing_model(error, &model, Into::into))?;
            let adapter = state.store.adapter(&caller.owner, &reference).await;
            let adapter = adapter.map_err(|error| name_missing_model(error, &model, Into::into))?;
            Ok(Json(Model { id: model, ..Model::from_adapter(base, &adapter) }))
        }
    }
}
