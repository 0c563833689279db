//! `/v1/files`: datasets as files of OpenAI's API, and the results of fine-tuning jobs as CSV files.

use super::fine_tuning::results;
use super::ids::IdKind;
use super::list::{OpenAiList, Order, Page};
use super::request::unsupported_field;
use crate::http::auth::Caller;
use crate::http::datasets::{self, check, insert_or_get};
use crate::http::error::ApiResult;
use crate::http::extract::{PathParam, QueryParams};
use crate::http::multipart::{self, FormSpec};
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::spawn::spawn_detached;
use crate::http::state::AppState;
use crate::http::upload::Binary;
use crate::store::{Dataset, PageRequest};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use espalier_core::dataset::RequestedFormat;
use espalier_core::error::{Context, Error, Result, json_pointer};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

const FINE_TUNE: &str = "fine-tune";
const FINE_TUNE_RESULTS: &str = "fine-tune-results";

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "file-01938f3e4b2d7a108c110a9b8c7d6e5f", "object": "file", "bytes": 812345, "created_at": 1767605398,
    "expires_at": null, "filename": "train.jsonl", "purpose": "fine-tune", "status": "processed", "status_details": null}))]
pub struct FileObject {
    pub id: String,
    /// `file`
    pub object: &'static str,
    pub bytes: u64,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Always `null`: files stay until they are deleted.
    pub expires_at: Option<i64>,
    pub filename: String,
    /// `fine-tune`, or `fine-tune-results`.
    pub purpose: &'static str,
    /// Always `processed`: a file is checked before it is stored.
    pub status: &'static str,
    pub status_details: Option<String>,
}

/// File and its purpose.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form in the OpenAPI document")]
pub struct FileForm {
    /// The file, with a file name: any format that `/datasets` reads.
    pub file: Binary,
    /// `fine-tune`; other purposes are refused.
    pub purpose: String,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FilesQuery {
    /// Returns only files with this purpose. Files of other purposes than `fine-tune` are not listed.
    pub purpose: Option<String>,
    /// Page size. Default 20.
    #[param(minimum = 1)]
    pub limit: Option<u32>,
    /// Id of the last file of the previous page.
    pub after: Option<String>,
    /// Only `desc` (newest first) is supported.
    #[param(inline)]
    pub order: Option<Order>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "file-01938f3e4b2d7a108c110a9b8c7d6e5f", "object": "file", "deleted": true}))]
pub struct DeletedFile {
    pub id: String,
    /// `file`
    pub object: &'static str,
    pub deleted: bool,
}

/// Uploaded file of a form.
struct FileUpload(multipart::TextForm);

impl FromRequest<AppState> for FileUpload {
    type Rejection = crate::http::error::ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let spec = FormSpec::new(state, "purpose", "file", state.settings.max_dataset_bytes);
        multipart::read_text_form(request, spec).await.map(Self)
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_files))
        .routes(routes!(get_file, delete_file))
        .routes(routes!(get_file_content))
}

pub fn upload_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_file))
}

/// Upload a file
///
/// Stores a dataset for fine-tuning. It is checked at once: a file with errors is refused, and every error is named.
#[utoipa::path(
    post, path = "/v1/files", operation_id = "create_file", tag = "openai",
    request_body(content((FileForm = "multipart/form-data"))),
    responses((status = 200, description = "The file.", body = FileObject), BadRequest, ServiceUnavailable),
)]
async fn create_file(state: AppState, caller: Caller, FileUpload(form): FileUpload) -> ApiResult<Json<FileObject>> {
    check_purpose(&form)?;
    let upload =
        form.file.ok_or_else(|| Error::invalid_field("/file", "the form has no part \"file\": add the file"))?;
    let path = upload.path().to_path_buf();
    let options =
        check::detect_options(&state, path.clone(), RequestedFormat::default(), upload.metadata.clone()).await?;
    let file = check::DatasetFile { path, options: options.clone(), task: None, job: None };
    let report = check::check(&state, file).await?;
    let insertion = async move { insert_or_get(&state, &caller.owner, upload, options, report).await };
    let (dataset, _) = spawn_detached("storing a file", insertion).await?;
    Ok(Json(FileObject::from(&dataset)))
}

fn check_purpose(form: &multipart::TextForm) -> Result<()> {
    if let Some(field) = form.texts.keys().find(|name| name.as_str() != "purpose") {
        let message = match field.starts_with("expires_after") {
            true => "files stay until they are deleted: leave it out".to_string(),
            false => "is unknown: send \"file\" and \"purpose\"".to_string(),
        };
        return Err(unsupported_field(&json_pointer(&[field]), &message));
    }
    match form.texts.get("purpose").map(String::as_str) {
        Some(FINE_TUNE) => Ok(()),
        Some(other) => {
            let message = format!("the purpose \"{other}\" is not supported: send \"{FINE_TUNE}\"");
            Err(unsupported_field("/purpose", &message))
        }
        None => Err(Error::invalid_field("/purpose", format!("is missing: send \"{FINE_TUNE}\""))),
    }
}

/// List files
///
/// Datasets, newest first. The result files of jobs are not listed; a job names its own.
#[utoipa::path(
    get, path = "/v1/files", operation_id = "list_files", tag = "openai", params(FilesQuery),
    responses((status = 200, description = "Page of files.", body = OpenAiList<FileObject>,
        example = json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})), BadRequest, ServiceUnavailable),
)]
async fn list_files(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<FilesQuery>,
) -> ApiResult<Json<OpenAiList<FileObject>>> {
    let page = Page::new(query.limit, query.order, &state.settings)?;
    if query.purpose.as_deref().is_some_and(|purpose| purpose != FINE_TUNE) {
        return Ok(Json(OpenAiList::default()));
    }
    let after = query.after.as_deref().map(|after| IdKind::File.after(after)).transpose()?;
    let datasets = state.store.datasets(&caller.owner, PageRequest { limit: page.limit + 1, after }).await?;
    Ok(Json(page.into_list(datasets.iter().map(FileObject::from).collect(), |file| file.id.clone())))
}

/// Get a file
#[utoipa::path(
    get, path = "/v1/files/{id}", operation_id = "get_file", tag = "openai",
    params(("id" = String, Path, description = "Id of the file.")),
    responses((status = 200, description = "The file.", body = FileObject), NotFound, ServiceUnavailable),
)]
async fn get_file(state: AppState, caller: Caller, PathParam(id): PathParam) -> ApiResult<Json<FileObject>> {
    if let Some(job) = result_file(&id) {
        let results = results::read(&state, &caller.owner, job).await?;
        return Ok(Json(FileObject {
            id: IdKind::ResultFile.format(job),
            bytes: results.csv.len() as u64,
            created_at: results.created_at,
            filename: "step_metrics.csv".to_string(),
            purpose: FINE_TUNE_RESULTS,
            ..FileObject::empty()
        }));
    }
    let dataset = state.store.dataset(&caller.owner, IdKind::File.require(&id)?).await?;
    Ok(Json(FileObject::from(&dataset)))
}

/// Get a file's content
///
/// The bytes that were uploaded, or the metrics of a job as CSV.
#[utoipa::path(
    get, path = "/v1/files/{id}/content", operation_id = "get_file_content", tag = "openai",
    params(("id" = String, Path, description = "Id of the file.")),
    responses(
        (status = 200, description = "The content.", body = Binary, content_type = "application/octet-stream"), NotFound, Conflict, ServiceUnavailable,
    ),
)]
async fn get_file_content(state: AppState, caller: Caller, PathParam(id): PathParam) -> ApiResult<Response> {
    if let Some(job) = result_file(&id) {
        let csv = results::read(&state, &caller.owner, job).await?.csv;
        return Ok(([(CONTENT_TYPE, "application/octet-stream")], csv).into_response());
    }
    let dataset = state.store.dataset(&caller.owner, IdKind::File.require(&id)?).await?;
    let path = state.blobs.dataset(&dataset.hash).await?;
    datasets::check::file_exists(&path)?;
    let file = tokio::fs::File::open(path).await.context("opening a dataset's file")?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], Body::from_stream(ReaderStream::new(file))).into_response())
}

/// Delete a file
///
/// Deletes the dataset. One that an unfinished job uses cannot be deleted (409).
#[utoipa::path(
    delete, path = "/v1/files/{id}", operation_id = "delete_file", tag = "openai",
    params(("id" = String, Path, description = "Id of the file.")),
    responses((status = 200, description = "The file is deleted.", body = DeletedFile), NotFound, Conflict, ServiceUnavailable),
)]
async fn delete_file(state: AppState, caller: Caller, PathParam(id): PathParam) -> ApiResult<Json<DeletedFile>> {
    let dataset = IdKind::File.require(&id)?;
    let deletion = async move { datasets::delete(&state, &caller.owner, dataset).await };
    spawn_detached("deleting a file", deletion).await?;
    Ok(Json(DeletedFile { id, object: "file", deleted: true }))
}

fn result_file(id: &str) -> Option<Uuid> {
    IdKind::ResultFile.has_prefix(id).then(|| IdKind::ResultFile.parse(id)).flatten()
}

impl FileObject {
    fn empty() -> Self {
        Self {
            id: String::new(),
            object: "file",
            bytes: 0,
            created_at: 0,
            expires_at: None,
            filename: String::new(),
            purpose: FINE_TUNE,
            status: "processed",
            status_details: None,
        }
    }
}

impl From<&Dataset> for FileObject {
    fn from(dataset: &Dataset) -> Self {
        Self {
            id: IdKind::File.format(dataset.id),
            bytes: dataset.bytes,
            created_at: dataset.created_at.timestamp(),
            filename: dataset.file_name.clone().unwrap_or_else(|| format!("{}.jsonl", dataset.id.simple())),
            ..Self::empty()
        }
    }
}
