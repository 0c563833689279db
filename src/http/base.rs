//! `GET /base`: description of the frozen base model; `GET /bases`: the base models of a deployment that a caller uses.

use super::auth::Caller;
use super::error::ApiResult;
use super::openapi::ServiceUnavailable;
use super::state::AppState;
use crate::store::BaseUsage;
use axum::Json;
use espalier_core::model::BaseModelInfo;
use espalier_core::{adapter, task};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_base)).routes(routes!(list_bases))
}

/// The base model, and the methods and tasks that this server supports.
#[derive(Serialize, ToSchema)]
pub struct BaseModelView {
    #[serde(flatten)]
    pub info: BaseModelInfo,
    /// Values of `type` of the supported adapter methods.
    pub methods: Vec<&'static str>,
    /// Values of `type` of the supported tasks.
    pub tasks: Vec<&'static str>,
}

/// Get the base model
///
/// Architecture, size and fingerprint of the base model, and the methods and tasks that adapters can use.
#[utoipa::path(
    get, path = "/base", operation_id = "get_base", tag = "base",
    responses((status = 200, description = "The base model.", body = BaseModelView, example = json!({
        "name": "sentence-transformers/all-MiniLM-L6-v2", "model_type": "bert",
        "fingerprint": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5",
        "parameters": 22713216, "hidden_size": 384, "layers": 6, "attention_heads": 12, "vocabulary_size": 30522,
        "max_tokens": 512, "default_pooling": "mean", "poolings": ["mean", "cls", "first"], "sentence_encoder": true, "mask_token": null, "is_causal_lm": false, "chat": false,
        "target_modules": ["query", "key", "value", "attention_output", "feed_forward_in", "feed_forward_out"],
        "kernels": "cpu", "methods": ["lora", "ia3", "prompt_tuning"], "tasks": ["sequence_classification", "regression", "token_classification", "embedding", "masked_language_model", "causal_language_model", "preference"]
    }))),
)]
async fn get_base(state: AppState) -> Json<BaseModelView> {
    let info = state.base.info().clone();
    Json(BaseModelView { info, methods: adapter::METHOD_NAMES.to_vec(), tasks: task::TASK_TYPES.to_vec() })
}

/// A base model, and what the caller has of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BaseUsage)]
pub struct BaseUsageView {
    pub fingerprint: String,
    /// Whether the server that answers has this base model. Adapters and jobs of another one need a server that has it.
    pub is_served: bool,
    /// Name of the base model, where this server has it.
    pub name: Option<String>,
    pub adapters: u64,
    pub queued_jobs: u64,
    pub running_jobs: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"data": [{"fingerprint": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5", "is_served": true,
    "name": "sentence-transformers/all-MiniLM-L6-v2", "adapters": 12, "queued_jobs": 1, "running_jobs": 1}]}))]
pub struct BaseUsageList {
    pub data: Vec<BaseUsageView>,
}

/// List base models
///
/// The base model of this server first, then those that the caller's adapters and unfinished jobs belong to, by fingerprint. Servers of
/// several base models can share a database.
#[utoipa::path(
    get, path = "/bases", operation_id = "list_bases", tag = "base",
    responses((status = 200, description = "The base models.", body = BaseUsageList), ServiceUnavailable),
)]
async fn list_bases(state: AppState, caller: Caller) -> ApiResult<Json<BaseUsageList>> {
    let info = state.base.info();
    let mut used = state.store.base_usage(&caller.owner).await?;
    let own = match used.iter().position(|usage| usage.fingerprint == info.fingerprint) {
        Some(index) => used.remove(index),
        None => BaseUsage { fingerprint: info.fingerprint.clone(), adapters: 0, queued_jobs: 0, running_jobs: 0 },
    };
    let view = |usage: BaseUsage| {
        let is_served = usage.fingerprint == info.fingerprint;
        let BaseUsage { fingerprint, adapters, queued_jobs, running_jobs } = usage;
        BaseUsageView {
            fingerprint,
            is_served,
            name: is_served.then(|| info.name.clone()),
            adapters,
            queued_jobs,
            running_jobs,
        }
    };
    Ok(Json(BaseUsageList { data: std::iter::once(own).chain(used).map(view).collect() }))
}
