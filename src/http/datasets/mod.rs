//! `/datasets`: upload, list, get and delete datasets, and read their examples. Files are validated at upload and stored by content hash.

pub mod check;
pub mod examples;
mod request;

pub use request::{DatasetForm, DatasetQuery, DatasetRequest, InsertOutcome, delete, insert_or_get, rollback};

use super::auth::Caller;
use super::error::ApiResult;
use super::extract::{PathId, QueryParams};
use super::openapi::{
    BadRequest, Conflict, NotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, UnprocessableEntity,
};
use super::pagination::{List, ListQuery, PageParams};
use super::spawn::spawn_detached;
use super::state::AppState;
use crate::store::Dataset;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use examples::{Examples, ExamplesQuery, StoredFile};
use request::DatasetUpload;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_datasets))
        .routes(routes!(get_dataset, delete_dataset))
        .routes(routes!(get_dataset_examples))
}

pub fn upload_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_dataset))
}

/// Upload a dataset
///
/// CSV, TSV, JSON, JSON lines, Parquet, xlsx, CoNLL, FASTA or fastText, also in a `.gz` or `.zip`, in a form or as the request body. Its
/// content decides the format. The file is validated at once; if it has errors, it is rejected and every
/// invalid row is named. The same file with the same options is stored once.
#[utoipa::path(
    post, path = "/datasets", operation_id = "create_dataset", tag = "datasets", params(DatasetQuery),
    request_body(content(
        (DatasetForm = "multipart/form-data"),
        (String = "text/csv", example = "text,label\nwhere is my card?,card_arrival\n"),
        (String = "text/tab-separated-values", example = "text\tlabel\nwhere is my card?\tcard_arrival\n"),
        (String = "application/jsonl", example = "{\"text\": \"where is my card?\", \"label\": \"card_arrival\"}\n"),
    )),
    responses(
        (status = 201, description = "The dataset and its validation report.", body = Dataset,
            headers(("location" = String, description = "Path of the dataset: `/datasets/{id}`.")),
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
        (status = 200, description = "The existing dataset with the same content and options.", body = Dataset,
            headers(("location" = String, description = "Path of the dataset: `/datasets/{id}`.")),
            example = json!({"id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f", "file_name": "intents.csv"})),
        BadRequest, RequestTimeout, PayloadTooLarge, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn create_dataset(state: AppState, caller: Caller, upload: DatasetUpload) -> ApiResult<Response> {
    let DatasetUpload { upload, options, task } = upload;
    let file = check::DatasetFile { path: upload.path().to_path_buf(), options: options.clone(), task, job: None };
    let report = check::check(&state, file).await?;
    let insertion = async move { insert_or_get(&state, &caller.owner, upload, options, report).await };
    let (dataset, outcome) = spawn_detached("storing a dataset", insertion).await?;
    let status = match outcome {
        InsertOutcome::Created => StatusCode::CREATED,
        InsertOutcome::Existing => StatusCode::OK,
    };
    let location = [(LOCATION, format!("/datasets/{}", dataset.id))];
    Ok((status, location, Json(dataset)).into_response())
}

/// List datasets
///
/// Newest first.
#[utoipa::path(
    get, path = "/datasets", operation_id = "list_datasets", tag = "datasets", params(ListQuery),
    responses((status = 200, description = "Page of datasets.", body = List<Dataset>,
        example = json!({"data": [], "next": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f"})), UnprocessableEntity, ServiceUnavailable),
)]
async fn list_datasets(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> ApiResult<Json<List<Dataset>>> {
    let page_request = PageParams::new(query.limit, query.after, &state.settings)?;
    let datasets = state.store.datasets(&caller.owner, page_request.to_store_page()).await?;
    Ok(Json(page_request.into_list(datasets, |dataset| dataset.id, |dataset| dataset)))
}

/// Get a dataset
#[utoipa::path(
    get, path = "/datasets/{id}", operation_id = "get_dataset", tag = "datasets",
    params(("id" = Uuid, Path, description = "Dataset id.")),
    responses((status = 200, description = "The dataset and its validation report.", body = Dataset,
        example = json!({"id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f", "file_name": "intents.csv"})), NotFound, ServiceUnavailable),
)]
async fn get_dataset(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<Json<Dataset>> {
    Ok(Json(state.store.dataset(&caller.owner, id).await?))
}

/// Get examples of a dataset
///
/// The rows as training reads them: a page in the order of the file, or chosen lines. Rows with errors are left out.
#[utoipa::path(
    get, path = "/datasets/{id}/examples", operation_id = "get_dataset_examples", tag = "datasets",
    params(("id" = Uuid, Path, description = "Dataset id."), ExamplesQuery),
    responses((status = 200, description = "Page of examples.", body = Examples,
        example = json!({"data": [{"line": 2, "text": "where is my card?", "text_pair": null, "target": {"label": "card_arrival"}}], "next": 2})),
        NotFound, Conflict, UnprocessableEntity, ServiceUnavailable),
)]
async fn get_dataset_examples(
    state: AppState,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(query): QueryParams<ExamplesQuery>,
) -> ApiResult<Json<Examples>> {
    let dataset = state.store.dataset(&caller.owner, id).await?;
    Ok(Json(examples::read(&state, StoredFile::of_dataset(&state, dataset), &query).await?))
}

/// Delete a dataset
///
/// A dataset that an unfinished job uses cannot be deleted (409). The file is deleted with the last dataset that has its content.
#[utoipa::path(
    delete, path = "/datasets/{id}", operation_id = "delete_dataset", tag = "datasets",
    params(("id" = Uuid, Path, description = "Dataset id.")),
    responses((status = 204, description = "The dataset is deleted."), NotFound, Conflict, ServiceUnavailable),
)]
async fn delete_dataset(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<StatusCode> {
    spawn_detached("deleting a dataset", async move { request::delete(&state, &caller.owner, id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
