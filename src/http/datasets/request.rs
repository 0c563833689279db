//! Upload and deletion of a dataset: the request (a form, or the file as the body), the file and its row.

use super::check;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, QueryParams};
use crate::http::json;
use crate::http::multipart::{self, FormSpec};
use crate::http::state::AppState;
use crate::http::upload::{self, Binary, FileMetadata, Upload};
use crate::store::{Dataset, DatasetLimits, NewDataset};
use axum::RequestExt;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use espalier_core::dataset::{
    Decimal, Format, OnBadRows, Options, Quoting, Report, RequestedFormat, Separator, TextEncoding,
};
use espalier_core::error::{Error, Result};
use espalier_core::task::{self, Split};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How to read an uploaded file. Every field is optional.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"format": "csv", "columns": {"text": "text", "label": "category"}, "on_bad_rows": "skip"}))]
pub struct DatasetRequest {
    /// File format; found in the content by default.
    pub format: Option<Format>,
    /// Character between two columns, such as `;` or `\t`; found in the header by default.
    pub separator: Option<Separator>,
    /// Meaning of double quotes in a file with columns; found in the content by default.
    pub quoting: Option<Quoting>,
    /// Encoding of the text, such as `windows-1252`; by default UTF-8, or UTF-16 where the content shows it.
    pub encoding: Option<TextEncoding>,
    /// Maps the task's fields (such as `text`, `text_pair`, `label`) to columns of the file.
    pub columns: BTreeMap<String, String>,
    /// `refuse` rejects a file with invalid rows, `skip` leaves them out with a warning.
    pub on_bad_rows: OnBadRows,
    /// Names of the labels or tags that the file gives as numbers: integers are indices into this list, and a list of zeros and ones has
    /// one for each name. Names of columns of zeros and ones make these the labels of each row.
    pub label_names: Vec<String>,
    /// Character between the labels of a text with several labels; by default `;`, or `|` or `,` where parts of labels repeat.
    pub label_separator: Option<Separator>,
    /// Character before the fraction of the file's numbers, `.` or `,`; needed for numbers with groups of thousands, a decimal comma, a
    /// currency or a percent sign.
    pub decimal: Option<Decimal>,
    /// Rows to read of a file with a column `split` or `set`. Default: `train`.
    pub split: Option<Split>,
    /// Task that the rows are validated for; derived from the fields by default.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub task: Option<task::Config>,
}

/// Dataset file and options.
#[derive(ToSchema)]
pub struct DatasetForm {
    /// The file, with a file name.
    pub dataset: Binary,
    /// Options; every field is optional.
    pub options: Option<DatasetRequest>,
}

/// Options of a file sent as the request body.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DatasetQuery {
    /// File name, if the file is the request body.
    #[param(example = "intents.csv")]
    pub file_name: Option<String>,
    /// File format, if the file is the request body; found in the content by default.
    pub format: Option<Format>,
    /// Character between two columns, if the file is the request body.
    #[param(value_type = Option<String>)]
    pub separator: Option<Separator>,
    /// Meaning of double quotes, if the file is the request body.
    pub quoting: Option<Quoting>,
    /// Encoding of the text, if the file is the request body.
    #[param(value_type = Option<String>)]
    pub encoding: Option<TextEncoding>,
}

/// Uploaded file with its options.
pub struct DatasetUpload {
    pub upload: Upload,
    pub options: Options,
    pub task: Option<task::Config>,
}

impl FromRequest<AppState> for DatasetUpload {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &AppState) -> ApiResult<Self> {
        let QueryParams(query) = request.extract_parts_with_state::<QueryParams<DatasetQuery>, _>(state).await?;
        match extract::media_type(request.headers()).as_deref() {
            Some("multipart/form-data") => from_form(request, query, state).await,
            _ => from_body(request, query, state).await,
        }
    }
}

async fn from_form(request: Request, query: DatasetQuery, state: &AppState) -> ApiResult<DatasetUpload> {
    let spec = FormSpec::new(state, "options", "dataset", state.settings.max_dataset_bytes);
    let form = multipart::read_form::<DatasetRequest>(request, spec).await?;
    let upload =
        form.file.ok_or_else(|| Error::invalid("dataset_missing", "the form has no part \"dataset\": add the file"))?;
    let mut options = form.json.unwrap_or_default();
    options.format = options.format.or(query.format);
    options.separator = options.separator.or(query.separator);
    options.quoting = options.quoting.or(query.quoting);
    options.encoding = options.encoding.or(query.encoding);
    Ok(to_dataset_upload(state, upload, options).await?)
}

async fn from_body(request: Request, query: DatasetQuery, state: &AppState) -> ApiResult<DatasetUpload> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let metadata = FileMetadata::new(query.file_name.as_deref(), content_type);
    let DatasetQuery { format, separator, quoting, encoding, .. } = query;
    let options = DatasetRequest { format, separator, quoting, encoding, ..DatasetRequest::default() };
    let limit = state.settings.max_dataset_bytes;
    let upload = upload::receive_body(state, request, "the file", metadata, limit).await?;
    Ok(to_dataset_upload(state, upload, options).await?)
}

async fn to_dataset_upload(state: &AppState, upload: Upload, request: DatasetRequest) -> Result<DatasetUpload> {
    let DatasetRequest {
        format,
        separator,
        quoting,
        encoding,
        columns,
        on_bad_rows,
        label_names,
        label_separator,
        decimal,
        split,
        task,
    } = request;
    let requested = RequestedFormat { format, separator, quoting, encoding };
    let detected =
        check::detect_options(state, upload.path().to_path_buf(), requested, upload.metadata.clone()).await?;
    let options = Options { columns, on_bad_rows, label_names, label_separator, decimal, split, ..detected };
    Ok(DatasetUpload { upload, options, task })
}

/// Whether this request created the dataset's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    Created,
    Existing,
}

/// Writes the file under its hash, then inserts the row, or returns the owner's existing dataset with equal content and options.
///
/// # Errors
/// `Internal` if the disk or the store fails.
pub async fn insert_or_get(
    state: &AppState,
    owner: &str,
    upload: Upload,
    options: Options,
    report: Report,
) -> Result<(Dataset, InsertOutcome)> {
    let (hash, bytes, file_name) = (upload.hash.clone(), upload.bytes, upload.metadata.file_name.clone());
    let reservation = state.blobs.put_dataset(upload.path().to_path_buf(), &hash).await?;
    let started_at = state.store.now().await?;
    let owner_limits = state.access.authenticator.owner(owner).limits;
    let limits = DatasetLimits { bytes: owner_limits.dataset_bytes, rows: owner_limits.dataset_rows };
    let new_dataset = NewDataset { owner: owner.to_string(), file_name, hash, bytes, options, report, limits };
    let dataset = state.store.add_dataset(new_dataset).await?;
    reservation.release().await;
    // A row that is older than this request existed before.
    let outcome = if dataset.created_at >= started_at { InsertOutcome::Created } else { InsertOutcome::Existing };
    Ok((dataset, outcome))
}

/// Deletes the row, and the file if no other row refers to it.
///
/// # Errors
/// `NotFound`; `Conflict` if an unfinished job uses it.
pub async fn delete(state: &AppState, owner: &str, id: Uuid) -> Result<()> {
    let Some(hash) = state.store.delete_dataset(owner, id).await? else { return Ok(()) };
    state.blobs.remove_dataset(&hash).await
}

/// Deletes a dataset that was inserted for a job that could not be queued. If that fails, the dataset remains and can be listed
/// and deleted like any other.
pub async fn rollback(state: &AppState, owner: &str, id: Uuid) {
    if let Err(error) = delete(state, owner, id).await {
        tracing::warn!(dataset = %id, error = %error, "dataset of a rejected job was not deleted");
    }
}
