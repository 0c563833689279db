//! `/datasets`: files to train on, checked when they come and kept by their content.
//!
//! Knows nothing of jobs but that one may need a dataset.

mod keep;
mod request;

pub use keep::{Stored, discard, keep};
pub use request::{DatasetForm, DatasetQuery, DatasetRequest};

use super::auth::Caller;
use super::check;
use super::error::Answer;
use super::extract::{Id, Params};
use super::lists::{List, ListQuery, Wanted};
use super::responses::{Busy, Conflict, Invalid, NotFound, Slow, TooLarge, Unreadable};
use super::state::State;
use super::work::to_the_end;
use crate::store::Dataset;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use request::Incoming;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(list_datasets)).routes(routes!(get_dataset, delete_dataset))
}

pub fn uploads() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(create_dataset))
}

/// Upload a dataset
///
/// CSV, TSV or JSONL, in a form or as the body itself. It is checked at once; with errors in it, it is refused and every
/// bad row is named. The same file with the same options is kept once.
#[utoipa::path(
    post, path = "/datasets", operation_id = "create_dataset", tag = "datasets", params(DatasetQuery),
    request_body(content(
        (DatasetForm = "multipart/form-data"),
        (String = "text/csv", example = "text,label\nwhere is my card?,card_arrival\n"),
        (String = "text/tab-separated-values", example = "text\tlabel\nwhere is my card?\tcard_arrival\n"),
        (String = "application/jsonl", example = "{\"text\": \"where is my card?\", \"label\": \"card_arrival\"}\n"),
    )),
    responses(
        (status = 201, description = "The dataset and what was found in it.", body = Dataset,
            headers(("location" = String, description = "Where it is: `/datasets/{id}`.")),
            example = json!({
                "id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f", "file_name": "intents.csv",
                "hash": "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab", "bytes": 812345,
                "options": {"format": "csv", "columns": {"label": "category"}, "on_bad_rows": "refuse"},
                "report": {"rows": 10003, "examples": 10003, "errors": [], "error_count": 0,
                    "warnings": [{"line": 17, "code": "duplicate", "message": "the same text and label as in line 4"}],
                    "warning_counts": {"duplicate": 1}, "labels": [{"label": "card_arrival", "count": 153}],
                    "lengths": {"min": 5, "median": 14, "p95": 36, "max": 98, "buckets": [{"up_to": 16, "count": 6020}]}},
                "created_at": "2026-01-05T09:29:58Z"
            })),
        (status = 200, description = "The same dataset, which was here already.", body = Dataset,
            headers(("location" = String, description = "Where it is: `/datasets/{id}`.")),
            example = json!({"id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f", "file_name": "intents.csv"})),
        Unreadable, Slow, TooLarge, Invalid, Busy,
    ),
)]
async fn create_dataset(state: State, caller: Caller, incoming: Incoming) -> Answer<Response> {
    let Incoming { upload, options, task } = incoming;
    let file = check::File { path: upload.path().to_path_buf(), options: options.clone(), task, hyperparameters: None };
    let report = check::dataset(&state, file).await?;
    let keeping = async move { keep(&state, &caller.owner, upload, options, report).await };
    let (dataset, stored) = to_the_end("keeping a dataset", keeping).await?;
    let status = match stored {
        Stored::Now => StatusCode::CREATED,
        Stored::Before => StatusCode::OK,
    };
    let location = [(LOCATION, format!("/datasets/{}", dataset.id))];
    Ok((status, location, Json(dataset)).into_response())
}

/// List datasets
///
/// The newest first.
#[utoipa::path(
    get, path = "/datasets", operation_id = "list_datasets", tag = "datasets", params(ListQuery),
    responses((status = 200, description = "A page of datasets.", body = List<Dataset>,
        example = json!({"data": [], "next": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f"})), Invalid, Busy),
)]
async fn list_datasets(state: State, caller: Caller, Params(query): Params<ListQuery>) -> Answer<Json<List<Dataset>>> {
    let wanted = Wanted::new(query.limit, query.after, &state.settings)?;
    let datasets = state.store.datasets(&caller.owner, wanted.page()).await?;
    Ok(Json(wanted.list(datasets, |dataset| dataset.id, |dataset| dataset)))
}

/// A dataset
#[utoipa::path(
    get, path = "/datasets/{id}", operation_id = "get_dataset", tag = "datasets",
    params(("id" = Uuid, Path, description = "The dataset's id.")),
    responses((status = 200, description = "The dataset and what was found in it, as when it was uploaded.", body = Dataset,
        example = json!({"id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f", "file_name": "intents.csv"})), NotFound, Busy),
)]
async fn get_dataset(state: State, caller: Caller, Id(id): Id) -> Answer<Json<Dataset>> {
    Ok(Json(state.store.dataset(&caller.owner, id).await?))
}

/// Delete a dataset
///
/// Not while a job that is not over needs it. Its file goes with the last dataset of the same content.
#[utoipa::path(
    delete, path = "/datasets/{id}", operation_id = "delete_dataset", tag = "datasets",
    params(("id" = Uuid, Path, description = "The dataset's id.")),
    responses((status = 204, description = "It is deleted."), NotFound, Conflict, Busy),
)]
async fn delete_dataset(state: State, caller: Caller, Id(id): Id) -> Answer<StatusCode> {
    to_the_end("deleting a dataset", async move { keep::delete(&state, &caller.owner, id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
