//! `/owners`: owners, their limits and what they store.

use super::error::ApiResult;
use super::extract::{Json, PathParam};
use super::openapi::{BadRequest, RequestTimeout, ServiceUnavailable, UnprocessableEntity, UnsupportedMediaType};
use super::state::AppState;
use crate::store::{Owner, OwnerLimits, OwnerStorage, RequestLimits, is_owner_name};
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Tenant: datasets, jobs, adapters and files belong to one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Owner, example = json!({"name": "acme", "limits": {"requests_per_minute": 600, "queued_jobs": 20},
    "effective_limits": {"requests_per_minute": 600, "queued_jobs": 20, "concurrent_requests": 32},
    "storage": {"datasets": 3, "dataset_bytes": 734003, "dataset_rows": 12000, "adapters": 2, "adapter_bytes": 630784},
    "created_at": "2026-01-05T09:34:11Z"}))]
pub struct OwnerView {
    pub name: String,
    /// Limits that were set for it.
    pub limits: OwnerLimits,
    /// Its limits, and the defaults of the settings where it has none.
    pub effective_limits: OwnerLimits,
    pub storage: OwnerStorage,
    /// `null` for an owner that has nothing yet.
    pub created_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"data": []}))]
pub struct OwnerList {
    pub data: Vec<OwnerView>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_owners)).routes(routes!(get_owner, set_owner_limits))
}

/// # Errors
/// `Invalid` (`invalid_owner`).
pub fn parse_owner(name: String) -> Result<String> {
    match is_owner_name(&name) {
        true => Ok(name),
        false => {
            let detail = "the name of an owner has 1 to 255 characters other than spaces, \"/\" and \"*\"";
            Err(Error::invalid("invalid_owner", detail))
        }
    }
}

/// List owners
///
/// All owners, by name.
#[utoipa::path(
    get, path = "/owners", operation_id = "list_owners", tag = "access",
    responses((status = 200, description = "The owners.", body = OwnerList), ServiceUnavailable),
)]
async fn list_owners(state: AppState) -> ApiResult<axum::Json<OwnerList>> {
    let owners = state.store.owners().await?.into_iter();
    let data = owners.map(|(owner, storage)| view(&state, owner.name.clone(), Some(owner), storage)).collect();
    Ok(axum::Json(OwnerList { data }))
}

/// Get an owner
///
/// An owner exists as soon as something belongs to it; every name can be read.
#[utoipa::path(
    get, path = "/owners/{owner}", operation_id = "get_owner", tag = "access",
    params(("owner" = String, Path, description = "Name of the owner.", example = "acme")),
    responses((status = 200, description = "The owner.", body = OwnerView), UnprocessableEntity, ServiceUnavailable),
)]
async fn get_owner(state: AppState, PathParam(name): PathParam) -> ApiResult<axum::Json<OwnerView>> {
    let name = parse_owner(name)?;
    let (owner, storage) = (state.store.owner(&name).await?, state.store.owner_storage(&name).await?);
    Ok(axum::Json(view(&state, name, owner, storage)))
}

/// Set the limits of an owner
///
/// Replaces all limits of the owner. A limit that is left out is the default of the settings. Limits on requests and tokens hold for each
/// process of the service.
#[utoipa::path(
    put, path = "/owners/{owner}", operation_id = "set_owner_limits", tag = "access",
    params(("owner" = String, Path, description = "Name of the owner.", example = "acme")),
    request_body(content = OwnerLimits, example = json!({"requests_per_minute": 600, "queued_jobs": 20})),
    responses((status = 200, description = "The owner.", body = OwnerView), BadRequest, RequestTimeout, UnsupportedMediaType,
        UnprocessableEntity, ServiceUnavailable),
)]
async fn set_owner_limits(
    state: AppState,
    PathParam(name): PathParam,
    Json(limits): Json<OwnerLimits>,
) -> ApiResult<axum::Json<OwnerView>> {
    let name = parse_owner(name)?;
    check_request_limits("", &limits.requests())?;
    check_positive("", &[("running_jobs", limits.running_jobs)])?;
    let owner = state.store.set_owner_limits(&name, limits).await?;
    state.access_sync.refresh().await?;
    let storage = state.store.owner_storage(&name).await?;
    Ok(axum::Json(view(&state, name, Some(owner), storage)))
}

/// # Errors
/// `Invalid` for a limit of 0, which would lock the caller out. `pointer` is that of the object of limits.
pub fn check_request_limits(pointer: &str, limits: &RequestLimits) -> Result<()> {
    check_positive(
        pointer,
        &[
            ("requests_per_minute", limits.requests_per_minute.map(u64::from)),
            ("tokens_per_minute", limits.tokens_per_minute.map(u64::from)),
            ("concurrent_requests", limits.concurrent_requests.map(u64::from)),
        ],
    )
}

fn check_positive(pointer: &str, limits: &[(&str, Option<u64>)]) -> Result<()> {
    match limits.iter().find(|(_, limit)| *limit == Some(0)) {
        Some((name, _)) => Err(Error::invalid_field(format!("{pointer}/{name}"), "must be 1 or more")),
        None => Ok(()),
    }
}

fn view(state: &AppState, name: String, owner: Option<Owner>, storage: OwnerStorage) -> OwnerView {
    let limits = owner.as_ref().map(|owner| owner.limits).unwrap_or_default();
    OwnerView {
        effective_limits: limits.or(&state.settings.default_limits),
        limits,
        storage,
        created_at: owner.map(|owner| owner.created_at),
        name,
    }
}
