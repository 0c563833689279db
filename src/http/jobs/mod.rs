//! `/jobs`: create, list, get, cancel, pause, resume, retry and delete training jobs.

pub mod actions;
mod request;
mod submission;
mod time_estimate;
mod view;

#[cfg(test)]
mod tests;

pub use request::{ExamplesSource, JobForm, JobRequest, JobSubmission, SubmitQuery, ValidatedJob};
pub use submission::submit;
pub use view::{JobDetail, JobView};

use super::auth::Caller;
use super::datasets::examples::{self, Examples, ExamplesQuery, StoredFile};
use super::error::ApiResult;
use super::extract::{PathId, QueryParams};
use super::openapi::{
    BadRequest, Conflict, NotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, UnprocessableEntity,
    UnsupportedMediaType,
};
use super::pagination::{List, PageParams};
use super::spawn::run_blocking;
use super::state::AppState;
use crate::store::Status;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Page size; the maximum is a setting of the server.
    #[param(minimum = 1, default = 20)]
    pub limit: Option<u32>,
    /// `next` of the previous page of this list. The id of anything else is refused (422).
    pub after: Option<Uuid>,
    /// Returns only jobs with this status.
    pub status: Option<Status>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_jobs))
        .routes(routes!(get_job, delete_job))
        .routes(routes!(get_validation_examples))
        .routes(routes!(cancel_job))
        .routes(routes!(pause_job))
        .routes(routes!(resume_job))
        .routes(routes!(retry_job))
}

pub fn upload_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_job))
}

/// Create a job
///
/// Trains an adapter on a dataset: inline `examples`, a `dataset_id`, or a file in a form. The dataset is validated before the job
/// is queued; if it has errors, the job is rejected and every invalid row is named.
#[utoipa::path(
    post, path = "/jobs", operation_id = "create_job", tag = "jobs",
    params(SubmitQuery),
    request_body(content((JobRequest = "application/json"), (JobForm = "multipart/form-data"))),
    responses(
        (status = 202, description = "The job is queued.", body = JobDetail,
            headers(("location" = String, description = "Path of the job: `/jobs/{id}`."))),
        (status = 200, description = "With `validate_only`: the request is valid.", body = ValidatedJob),
        BadRequest, NotFound, RequestTimeout, Conflict, PayloadTooLarge, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn create_job(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<SubmitQuery>,
    submission: JobSubmission,
) -> ApiResult<Response> {
    if query.validate_only {
        return Ok(Json(submission::validate_only(&state, &caller, submission).await?).into_response());
    }
    let job = submission::submit(&state, &caller, submission).await?;
    let location = [(LOCATION, format!("/jobs/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(view::load_detail(&state, job).await?)).into_response())
}

/// List jobs
///
/// Newest first.
#[utoipa::path(
    get, path = "/jobs", operation_id = "list_jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, description = "Page of jobs.", body = List<JobView>,
        example = json!({"data": [], "next": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"})), UnprocessableEntity, ServiceUnavailable),
)]
async fn list_jobs(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<JobsQuery>,
) -> ApiResult<Json<List<JobView>>> {
    let page_request = PageParams::new(query.limit, query.after, &state.settings)?;
    let jobs = state.store.jobs(&caller.owner, query.status, page_request.to_store_page()).await?;
    Ok(Json(page_request.into_list(jobs, |job| job.id, JobView::from)))
}

/// Get a job
#[utoipa::path(
    get, path = "/jobs/{id}", operation_id = "get_job", tag = "jobs",
    params(("id" = Uuid, Path, description = "Job id.")),
    responses((status = 200, description = "The job.", body = JobDetail), NotFound, ServiceUnavailable),
)]
async fn get_job(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<Json<JobDetail>> {
    let job = state.store.job(&caller.owner, id).await?;
    Ok(Json(view::load_detail(&state, job).await?))
}

/// Get validation examples of a job
///
/// Rows of the file that the job's validation examples come from, as the job reads them. `example_lines` in the job's metrics has the lines
/// of examples of each true and predicted label.
#[utoipa::path(
    get, path = "/jobs/{id}/validation-examples", operation_id = "get_validation_examples", tag = "jobs",
    params(("id" = Uuid, Path, description = "Job id."), ExamplesQuery),
    responses((status = 200, description = "Page of examples.", body = Examples,
        example = json!({"data": [{"line": 2, "text": "where is my card?", "text_pair": null, "target": {"label": "card_arrival"}}], "next": null})),
        NotFound, Conflict, UnprocessableEntity, ServiceUnavailable),
)]
async fn get_validation_examples(
    state: AppState,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(query): QueryParams<ExamplesQuery>,
) -> ApiResult<Json<Examples>> {
    let job = state.store.job(&caller.owner, id).await?;
    let (dataset_id, options) = job.validation_source();
    let dataset = state.store.dataset(&caller.owner, dataset_id).await?;
    let options = options.unwrap_or(dataset.options);
    let file = StoredFile { hash: dataset.hash, options, task: job.spec.task().clone() };
    Ok(Json(examples::read(&state, file, &query).await?))
}

/// Cancel a job
///
/// A queued or paused job is cancelled at once, a running job after its current step. No adapter is published.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs",
    params(("id" = Uuid, Path, description = "Job id.")),
    responses((status = 200, description = "The job, cancelled or with `requested_action`.", body = JobDetail), NotFound, Conflict, ServiceUnavailable),
)]
async fn cancel_job(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<Json<JobDetail>> {
    let job = actions::cancel(&state, &caller.owner, id).await?;
    Ok(Json(view::load_detail(&state, job).await?))
}

/// Pause a job
///
/// A queued job is paused at once. A running job writes a checkpoint and stops after its current step; resuming continues from
/// the checkpoint.
#[utoipa::path(
    post, path = "/jobs/{id}/pause", operation_id = "pause_job", tag = "jobs",
    params(("id" = Uuid, Path, description = "Job id.")),
    responses((status = 200, description = "The job, paused or with `requested_action`.", body = JobDetail), NotFound, Conflict, ServiceUnavailable),
)]
async fn pause_job(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<Json<JobDetail>> {
    let job = state.store.pause_job(&caller.owner, id).await?;
    Ok(Json(view::load_detail(&state, job).await?))
}

/// Resume a job
///
/// Queues a paused job again, or withdraws a requested pause.
#[utoipa::path(
    post, path = "/jobs/{id}/resume", operation_id = "resume_job", tag = "jobs",
    params(("id" = Uuid, Path, description = "Job id.")),
    responses((status = 200, description = "The job, queued or running.", body = JobDetail), NotFound, Conflict, ServiceUnavailable),
)]
async fn resume_job(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<Json<JobDetail>> {
    let job = actions::resume(&state, &caller.owner, id).await?;
    Ok(Json(view::load_detail(&state, job).await?))
}

/// Retry a failed job
///
/// Queues a failed job again with the same settings. It goes on from its last checkpoint, if that still exists, and otherwise
/// starts from the beginning; both give the same adapter.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", operation_id = "retry_job", tag = "jobs",
    params(("id" = Uuid, Path, description = "Job id.")),
    responses((status = 200, description = "The job, queued.", body = JobDetail), NotFound, Conflict, ServiceUnavailable),
)]
async fn retry_job(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<Json<JobDetail>> {
    let retry = |max_queued| state.store.retry_job(&caller.owner, id, max_queued);
    let job = actions::within_quota(&caller, &state.settings, retry).await?;
    Ok(Json(view::load_detail(&state, job).await?))
}

/// Delete a job
///
/// Deletes a finished job with its events and checkpoints. Its adapter and its datasets stay.
#[utoipa::path(
    delete, path = "/jobs/{id}", operation_id = "delete_job", tag = "jobs",
    params(("id" = Uuid, Path, description = "Job id.")),
    responses((status = 204, description = "The job is deleted."), NotFound, Conflict, ServiceUnavailable),
)]
async fn delete_job(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<StatusCode> {
    state.store.delete_job(&caller.owner, id).await?;
    let folder = Arc::clone(&state.data_dir);
    run_blocking("removing a job's checkpoints", move || folder.remove_checkpoints(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
