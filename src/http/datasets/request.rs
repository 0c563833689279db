//! What a client sends to upload a dataset: a form, or the file itself as the body.
//!
//! Knows nothing of what is then done with it.

use crate::http::dataset_check;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, BodyTimeouts, QueryParams};
use crate::http::json;
use crate::http::multipart::{self, FormSpec};
use crate::http::state::AppState;
use crate::http::upload::{self, Binary, FileMetadata, Upload};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use espalier_core::dataset::{Format, OnBadRows, Options};
use espalier_core::error::{Error, Result};
use espalier_core::task;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// How an uploaded file is to be read. Everything may be left out.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"format": "csv", "columns": {"text": "text", "label": "category"}, "on_bad_rows": "skip"}))]
pub struct DatasetRequest {
    /// Where neither the file's name nor its content type says it.
    pub format: Option<Format>,
    /// From the task's fields (`text`, `text_pair`, `label`) to the file's columns.
    pub columns: BTreeMap<String, String>,
    /// `skip` turns rows that cannot be used into warnings.
    pub on_bad_rows: OnBadRows,
    /// What the dataset is for; read off the data where it is left out.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub task: Option<task::Config>,
}

/// A file and how it is to be read.
#[derive(ToSchema)]
pub struct DatasetForm {
    /// The file, with its name.
    pub dataset: Binary,
    /// Everything may be left out.
    pub options: Option<DatasetRequest>,
}

/// For a file that is sent as the body itself.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DatasetQuery {
    /// The file's name, where the file is the body itself.
    #[param(example = "intents.csv")]
    pub file_name: Option<String>,
    /// The file's format, where the file is the body itself.
    pub format: Option<Format>,
}

/// An uploaded file and what was asked of it.
pub struct DatasetUpload {
    pub upload: Upload,
    pub options: Options,
    pub task: Option<task::Config>,
}

impl FromRequest<AppState> for DatasetUpload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let (mut parts, body) = request.into_parts();
        let QueryParams(query) = QueryParams::<DatasetQuery>::from_request_parts(&mut parts, state).await?;
        let request = Request::from_parts(parts, body);
        let timeouts = BodyTimeouts::new(state.settings.body_idle_timeout, state.settings.body_total_timeout);
        match extract::media_type(request.headers()).as_deref() {
            Some("multipart/form-data") => from_form(request, query, state, timeouts).await,
            _ => from_body(request, query, state, timeouts).await,
        }
    }
}

async fn from_form(
    request: Request,
    query: DatasetQuery,
    state: &AppState,
    timeouts: BodyTimeouts,
) -> ApiResult<DatasetUpload> {
    let spec = FormSpec {
        json_part: "options",
        file_part: "dataset",
        max_json_bytes: state.settings.max_json_bytes,
        max_file_bytes: state.settings.max_dataset_bytes,
        timeouts,
        temp_dir: &state.data_dir.temp_dir(),
    };
    let form = multipart::read_form::<DatasetRequest>(request, &spec).await?;
    let upload =
        form.file.ok_or_else(|| Error::invalid("dataset_missing", "the form has no part \"dataset\": add the file"))?;
    let mut options = form.json.unwrap_or_default();
    options.format = options.format.or(query.format);
    Ok(to_dataset_upload(upload, options)?)
}

async fn from_body(
    request: Request,
    query: DatasetQuery,
    state: &AppState,
    timeouts: BodyTimeouts,
) -> ApiResult<DatasetUpload> {
    let limit = state.settings.max_dataset_bytes;
    extract::check_content_length(request.headers(), "the file", limit)?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let metadata = FileMetadata::new(query.file_name.as_deref(), content_type);
    let options = DatasetRequest { format: query.format, ..DatasetRequest::default() };
    // refused before the upload rather than after it
    resolve_format(&options, &metadata)?;
    let chunks = extract::body_chunks(request.into_body());
    let upload = upload::stream_to_disk(chunks, metadata, limit, timeouts, &state.data_dir.temp_dir()).await?;
    Ok(to_dataset_upload(upload, options)?)
}

fn to_dataset_upload(upload: Upload, request: DatasetRequest) -> Result<DatasetUpload> {
    let format = resolve_format(&request, &upload.metadata)?;
    let options = Options { format, columns: request.columns, on_bad_rows: request.on_bad_rows };
    Ok(DatasetUpload { upload, options, task: request.task })
}

fn resolve_format(request: &DatasetRequest, metadata: &FileMetadata) -> Result<Format> {
    dataset_check::resolve_format(request.format, metadata.file_name.as_deref(), metadata.content_type.as_deref())
}
