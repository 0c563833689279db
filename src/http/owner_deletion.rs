//! `DELETE /owners/{owner}`: deletion of everything that belongs to an owner.

use super::error::ApiResult;
use super::extract::{PathParam, QueryParams};
use super::openapi::{Conflict, ServiceUnavailable, UnprocessableEntity};
use super::owners::parse_owner;
use super::spawn::spawn_detached;
use super::state::AppState;
use crate::store::{OwnerDeletion, owner_deletion};
use axum::Json;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DeleteOwnerQuery {
    /// Deletes nothing, and answers with what would be deleted.
    pub dry_run: bool,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(delete_owner))
}

/// Delete everything of an owner
///
/// Cancels the owner's jobs, waits until they have stopped, and deletes all jobs, events, datasets, adapters and names with their files, keys,
/// limits, usage and shares, and the feature cache. Files that another owner refers to stay, and so does the audit log. The answer is the receipt. The call can be repeated: an owner
/// without anything gets an empty receipt. Meanwhile nothing can be added for the owner (409 `owner_being_deleted`); if running jobs do not
/// stop in time, nothing is deleted (503 `owner_jobs_running`).
#[utoipa::path(
    delete, path = "/owners/{owner}", operation_id = "delete_owner", tag = "access",
    params(("owner" = String, Path, description = "Name of the owner.", example = "acme"), DeleteOwnerQuery),
    responses(
        (status = 200, description = "Receipt of what was deleted, or with `dry_run` would be.", body = OwnerDeletion,
            example = json!({
                "owner": "acme", "dry_run": false,
                "started_at": "2026-01-05T09:29:58Z", "finished_at": "2026-01-05T09:29:59Z",
                "cancelled_jobs": [], "rows": {"datasets": 1, "events": 42, "jobs": 1},
                "jobs": ["01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"],
                "datasets": [{"id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f",
                    "sha256": "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab", "bytes": 812345, "shared": false}],
                "adapters": [], "bytes": 812345
            })),
        Conflict, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn delete_owner(
    state: AppState,
    PathParam(owner): PathParam,
    QueryParams(query): QueryParams<DeleteOwnerQuery>,
) -> ApiResult<Json<OwnerDeletion>> {
    let owner = parse_owner(owner)?;
    if query.dry_run {
        return Ok(Json(owner_deletion::preview(state.store.as_ref(), &owner).await?));
    }
    let deletion = async move {
        let receipt = owner_deletion::delete(&state.store, &state.blobs, &owner).await?;
        for adapter in receipt.deleted.adapters.iter().filter(|adapter| !adapter.shared) {
            state.serving.invalidate_adapter(&adapter.sha256);
        }
        state.access_sync.refresh().await?;
        Ok(receipt)
    };
    Ok(Json(spawn_detached("deleting an owner", deletion).await?))
}
