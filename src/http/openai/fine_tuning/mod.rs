//! `/v1/fine_tuning/jobs`: training jobs in OpenAI's format. They are the jobs of `/jobs`, whichever API created them.

mod events;
mod method;
mod request;
pub mod results;
mod view;

use super::fields::OpenAiJson;
use super::ids::IdKind;
use super::list::{OpenAiList, Page};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::extract::{PathParam, QueryParams};
use crate::http::jobs::{ExamplesSource, JobSubmission, actions, submit};
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::state::AppState;
use crate::store::{Job, Metadata, PageRequest};
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Error, Problem, Result, json_pointer};
use events::JobEvent;
pub use request::FineTuningRequest;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use view::{Checkpoint, FineTuningJob};

/// Query of a list of events or checkpoints.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Page size. Default 20.
    #[param(minimum = 1)]
    pub limit: Option<u32>,
    /// Id of the last object of the previous page.
    pub after: Option<String>,
}

/// Query of the list of jobs.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Page size. Default 20.
    #[serde(default)]
    #[param(minimum = 1)]
    pub limit: Option<u32>,
    /// Id of the last job of the previous page.
    #[serde(default)]
    pub after: Option<String>,
    /// `metadata[key]=value` returns only jobs with these pairs; `metadata=null` those without any.
    #[serde(flatten)]
    #[param(value_type = Option<Object>)]
    pub metadata: BTreeMap<String, String>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create_fine_tuning_job, list_fine_tuning_jobs))
        .routes(routes!(get_fine_tuning_job))
        .routes(routes!(cancel_fine_tuning_job))
        .routes(routes!(pause_fine_tuning_job))
        .routes(routes!(resume_fine_tuning_job))
        .routes(routes!(list_fine_tuning_events))
        .routes(routes!(list_fine_tuning_checkpoints))
}

/// Create a fine-tuning job
///
/// Compatible with OpenAI's endpoint for the methods `supervised` and `dpo`. The job trains an adapter of the base model, or goes on from
/// the adapter that `model` names.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs", operation_id = "create_fine_tuning_job", tag = "openai", request_body = FineTuningRequest,
    responses((status = 200, description = "The job is queued.", body = FineTuningJob), BadRequest, NotFound, Conflict, ServiceUnavailable),
)]
async fn create_fine_tuning_job(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<FineTuningRequest>,
) -> ApiResult<Response> {
    let (request, dataset) = request.into_job_request(&state, &caller.owner).await?;
    let submission = JobSubmission { request, source: ExamplesSource::Stored(dataset) };
    let job = submit(&state, &caller, submission).await?;
    Ok(ignored.add_to(axum::Json(FineTuningJob::load(&state, job).await?).into_response()))
}

/// List fine-tuning jobs
///
/// All training jobs, newest first.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs", operation_id = "list_fine_tuning_jobs", tag = "openai", params(JobsQuery),
    responses((status = 200, description = "Page of jobs.", body = OpenAiList<FineTuningJob>,
        example = json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})), BadRequest, ServiceUnavailable),
)]
async fn list_fine_tuning_jobs(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<JobsQuery>,
) -> ApiResult<axum::Json<OpenAiList<FineTuningJob>>> {
    let page = Page::new(query.limit, None, &state.settings)?;
    let filter = MetadataFilter::parse(&query.metadata)?;
    let mut after = query.after.as_deref().map(|after| IdKind::Job.after(after)).transpose()?;
    let mut found: Vec<Job> = Vec::new();
    loop {
        let limit = page.limit + 1;
        let jobs = state.store.jobs(&caller.owner, None, PageRequest { limit, after }).await?;
        let is_last = jobs.len() < limit as usize;
        after = jobs.last().map(|job| job.id);
        found.extend(jobs.into_iter().filter(|job| filter.accepts(&job.metadata)));
        if is_last || found.len() > page.limit as usize {
            break;
        }
    }
    found.truncate(page.limit as usize + 1);
    let mut views = Vec::with_capacity(found.len());
    for job in found {
        views.push(FineTuningJob::load(&state, job).await?);
    }
    Ok(axum::Json(page.into_list(views, |job| job.id.clone())))
}

/// Get a fine-tuning job
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{id}", operation_id = "get_fine_tuning_job", tag = "openai",
    params(("id" = String, Path, description = "Id of the job.")),
    responses((status = 200, description = "The job.", body = FineTuningJob), NotFound, ServiceUnavailable),
)]
async fn get_fine_tuning_job(
    state: AppState,
    caller: Caller,
    PathParam(id): PathParam,
) -> ApiResult<axum::Json<FineTuningJob>> {
    let job = state.store.job(&caller.owner, IdKind::Job.require(&id)?).await?;
    Ok(axum::Json(FineTuningJob::load(&state, job).await?))
}

/// Cancel a fine-tuning job
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{id}/cancel", operation_id = "cancel_fine_tuning_job", tag = "openai",
    params(("id" = String, Path, description = "Id of the job.")),
    responses((status = 200, description = "The job; a running one stops after its current step.", body = FineTuningJob), NotFound, Conflict, ServiceUnavailable),
)]
async fn cancel_fine_tuning_job(
    state: AppState,
    caller: Caller,
    PathParam(id): PathParam,
) -> ApiResult<axum::Json<FineTuningJob>> {
    let job = actions::cancel(&state, &caller.owner, IdKind::Job.require(&id)?).await?;
    Ok(axum::Json(FineTuningJob::load(&state, job).await?))
}

/// Pause a fine-tuning job
///
/// The status is then `paused`.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{id}/pause", operation_id = "pause_fine_tuning_job", tag = "openai",
    params(("id" = String, Path, description = "Id of the job.")),
    responses((status = 200, description = "The job; a running one stops after its current step.", body = FineTuningJob), NotFound, Conflict, ServiceUnavailable),
)]
async fn pause_fine_tuning_job(
    state: AppState,
    caller: Caller,
    PathParam(id): PathParam,
) -> ApiResult<axum::Json<FineTuningJob>> {
    let job = state.store.pause_job(&caller.owner, IdKind::Job.require(&id)?).await?;
    Ok(axum::Json(FineTuningJob::load(&state, job).await?))
}

/// Resume a fine-tuning job
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{id}/resume", operation_id = "resume_fine_tuning_job", tag = "openai",
    params(("id" = String, Path, description = "Id of the job.")),
    responses((status = 200, description = "The job, queued or running.", body = FineTuningJob), NotFound, Conflict, ServiceUnavailable),
)]
async fn resume_fine_tuning_job(
    state: AppState,
    caller: Caller,
    PathParam(id): PathParam,
) -> ApiResult<axum::Json<FineTuningJob>> {
    let job = actions::resume(&state, &caller.owner, IdKind::Job.require(&id)?).await?;
    Ok(axum::Json(FineTuningJob::load(&state, job).await?))
}

/// List a job's events
///
/// Status changes and metrics, newest first.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{id}/events", operation_id = "list_fine_tuning_events", tag = "openai",
    params(("id" = String, Path, description = "Id of the job."), PageQuery),
    responses((status = 200, description = "Page of events.", body = OpenAiList<JobEvent>,
        example = json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})), BadRequest, NotFound, ServiceUnavailable),
)]
async fn list_fine_tuning_events(
    state: AppState,
    caller: Caller,
    PathParam(id): PathParam,
    QueryParams(query): QueryParams<PageQuery>,
) -> ApiResult<axum::Json<OpenAiList<JobEvent>>> {
    let page = Page::new(query.limit, None, &state.settings)?;
    let job = state.store.job(&caller.owner, IdKind::Job.require(&id)?).await?;
    let events = events::list(&state, &job, query.after.as_deref()).await?;
    Ok(axum::Json(page.into_list(events, |event| event.id.clone())))
}

/// List a job's checkpoints
///
/// The checkpoint whose weights are kept: that of the best epoch, which is the fine-tuned model.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{id}/checkpoints", operation_id = "list_fine_tuning_checkpoints", tag = "openai",
    params(("id" = String, Path, description = "Id of the job."), PageQuery),
    responses((status = 200, description = "Page of checkpoints.", body = OpenAiList<Checkpoint>,
        example = json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})), BadRequest, NotFound, ServiceUnavailable),
)]
async fn list_fine_tuning_checkpoints(
    state: AppState,
    caller: Caller,
    PathParam(id): PathParam,
    QueryParams(query): QueryParams<PageQuery>,
) -> ApiResult<axum::Json<OpenAiList<Checkpoint>>> {
    let page = Page::new(query.limit, None, &state.settings)?;
    let job = state.store.job(&caller.owner, IdKind::Job.require(&id)?).await?;
    let checkpoint = match query.after {
        Some(after) => IdKind::Checkpoint.after(&after).map(|_| None)?,
        None => Checkpoint::load(&state, &job).await?,
    };
    Ok(axum::Json(page.into_list(checkpoint.into_iter().collect(), |checkpoint| checkpoint.id.clone())))
}

/// Pairs that listed jobs must have.
enum MetadataFilter {
    Pairs(Metadata),
    /// Jobs without metadata.
    Empty,
}

impl MetadataFilter {
    /// # Errors
    /// `Invalid` for a parameter that is none of the list's.
    fn parse(parameters: &BTreeMap<String, String>) -> Result<Self> {
        let (mut pairs, mut is_empty) = (Metadata::new(), false);
        for (name, value) in parameters {
            match name.strip_prefix("metadata[").and_then(|name| name.strip_suffix(']')) {
                Some(key) => {
                    pairs.insert(key.to_string(), value.clone());
                }
                None if name == "metadata" && value == "null" => is_empty = true,
                None => {
                    let message = "the query parameter is unknown: send limit, after or metadata[key]";
                    return Err(Error::Invalid(Problem::at_field("invalid_query", json_pointer(&[name]), message)));
                }
            }
        }
        Ok(if is_empty { Self::Empty } else { Self::Pairs(pairs) })
    }

    fn accepts(&self, metadata: &Metadata) -> bool {
        match self {
            Self::Empty => metadata.is_empty(),
            Self::Pairs(pairs) => pairs.iter().all(|(key, value)| metadata.get(key) == Some(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_filtered_by_metadata() {
        let parameters = |pairs: &[(&str, &str)]| {
            MetadataFilter::parse(&pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        let metadata: Metadata = [("team".to_string(), "a".to_string())].into();
        assert!(parameters(&[("metadata[team]", "a")]).unwrap().accepts(&metadata));
        assert!(!parameters(&[("metadata[team]", "b")]).unwrap().accepts(&metadata));
        assert!(parameters(&[]).unwrap().accepts(&metadata));
        assert!(!parameters(&[("metadata", "null")]).unwrap().accepts(&metadata));
        assert!(parameters(&[("page", "2")]).is_err());
    }
}
