//! `GET /adapters/{id}/lineage`: what an adapter was made of, and by whom.

use super::view::AdapterVersion;
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::extract::PathParam;
use crate::http::openapi::{NotFound, ServiceUnavailable, UnprocessableEntity};
use crate::http::state::AppState;
use crate::store::{Adapter, Job, ResolvedAdapter, none_if_not_found};
use axum::Json;
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use espalier_core::training::Plan;
use serde::Serialize;
use std::collections::HashSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// Most ancestors that are listed.
const MAX_ANCESTORS: usize = 100;

/// Origin of an adapter and of the adapters that it was trained from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"data": [{
    "adapter": {"id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "name": "support-intents",
        "version": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5"},
    "version": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5",
    "base": "sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9", "created_at": "2026-01-05T09:34:11Z",
    "created_by": "key:01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f", "job": null, "datasets": [], "parent": null}]}))]
pub struct Lineage {
    /// The adapter first, then the one that it was trained from, and so on.
    pub data: Vec<LineageEntry>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LineageEntry {
    /// `null` if the adapter is deleted.
    pub adapter: Option<AdapterVersion>,
    /// `sha256:…` of the adapter's files.
    pub version: String,
    /// Fingerprint of the base model it was trained on.
    pub base: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    /// Credential that created the job or imported the adapter.
    pub created_by: Option<String>,
    /// Job that trained it, if the job is not deleted.
    pub job: Option<LineageJob>,
    /// Datasets of the job that are not deleted: the training data first, then validation data of its own.
    pub datasets: Vec<LineageDataset>,
    /// Version of the adapter that the job started from.
    pub parent: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LineageJob {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    /// Resolved specification, with all defaults.
    #[schema(value_type = Object)]
    pub spec: Plan,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LineageDataset {
    pub id: Uuid,
    /// sha256 of the file, hexadecimal.
    pub hash: String,
    pub file_name: Option<String>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_adapter_lineage))
}

/// Get the lineage of an adapter
///
/// The job, the datasets by their hash, the base model, the adapter that it was trained from, and who created it.
#[utoipa::path(
    get, path = "/adapters/{id}/lineage", operation_id = "get_adapter_lineage", tag = "adapters",
    params(("id" = String, Path, description = "Adapter: an id, a name or `name@version`.", example = "support-intents")),
    responses((status = 200, description = "The adapter and its ancestors.", body = Lineage), NotFound, UnprocessableEntity,
        ServiceUnavailable),
)]
async fn get_adapter_lineage(state: AppState, caller: Caller, PathParam(key): PathParam) -> ApiResult<Json<Lineage>> {
    let reference = caller.adapter_reference(state.store.as_ref(), &key).await?;
    let adapter = state.store.adapter(&caller.owner, &reference).await?;
    // The datasets and jobs of another owner's adapter are not shared with it.
    let is_own = adapter.owner == caller.owner;
    let mut entry = entry(&state, adapter, is_own).await?;
    let mut data = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    while data.len() < MAX_ANCESTORS {
        let parent = entry.parent.clone().filter(|_| is_own).filter(|parent| seen.insert(parent.clone()));
        data.push(entry);
        let Some(version) = parent else { break };
        let found = state.store.adapter_of_version(&caller.owner, version.trim_start_matches("sha256:")).await?;
        entry = match found {
            Some(adapter) => self::entry(&state, adapter, is_own).await?,
            None => deleted_entry(version),
        };
    }
    Ok(Json(Lineage { data }))
}

async fn entry(state: &AppState, adapter: Adapter, is_own: bool) -> Result<LineageEntry> {
    let job = match adapter.job_id.filter(|_| is_own) {
        Some(id) => none_if_not_found(state.store.job(&adapter.owner, id).await)?,
        None => None,
    };
    let imported_by = adapter.description.provenance["created_by"].as_str().map(str::to_string);
    let created_by = job.as_ref().map_or(imported_by, |job| job.created_by.clone()).filter(|_| is_own);
    let parent = job.as_ref().and_then(|job| job.spec.from_adapter()).map(|from| format!("sha256:{}", from.version));
    let datasets = match &job {
        Some(job) => datasets(state, job).await?,
        None => Vec::new(),
    };
    let version = format!("sha256:{}", adapter.description.version);
    let resolved = ResolvedAdapter {
        id: adapter.id,
        owner: adapter.owner,
        name: adapter.name,
        version: adapter.description.version,
    };
    Ok(LineageEntry {
        adapter: Some(AdapterVersion::from(&resolved)),
        version,
        base: adapter.description.base_fingerprint,
        created_at: Some(adapter.created_at),
        created_by,
        job: job.map(|job| LineageJob { id: job.id, created_at: job.created_at, spec: job.spec }),
        datasets,
        parent,
    })
}

async fn datasets(state: &AppState, job: &Job) -> Result<Vec<LineageDataset>> {
    let mut datasets = Vec::new();
    for id in [Some(job.dataset_id), job.validation_dataset_id].into_iter().flatten() {
        let dataset = none_if_not_found(state.store.dataset(&job.owner, id).await)?;
        datasets.extend(dataset.map(|dataset| LineageDataset {
            id: dataset.id,
            hash: dataset.hash,
            file_name: dataset.file_name,
        }));
    }
    Ok(datasets)
}

fn deleted_entry(version: String) -> LineageEntry {
    LineageEntry {
        adapter: None,
        version,
        base: None,
        created_at: None,
        created_by: None,
        job: None,
        datasets: Vec::new(),
        parent: None,
    }
}
