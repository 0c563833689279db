//! What a client sends to upload a dataset: a form, or the file itself as the body.
//!
//! Knows nothing of what is then done with it.

use crate::http::check;
use crate::http::error::{Answer, Refusal};
use crate::http::extract::{self, Pace, Params};
use crate::http::form::{self, Expect};
use crate::http::json;
use crate::http::state::State;
use crate::http::upload::{self, Binary, Origin, Upload};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use espalier_core::data::{Format, OnBadRows, Options};
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
    #[serde(deserialize_with = "json::object")]
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
pub struct Incoming {
    pub upload: Upload,
    pub options: Options,
    pub task: Option<task::Config>,
}

impl FromRequest<State> for Incoming {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &State) -> Answer<Self> {
        let (mut parts, body) = request.into_parts();
        let Params(query) = Params::<DatasetQuery>::from_request_parts(&mut parts, state).await?;
        let request = Request::from_parts(parts, body);
        let pace = Pace::new(state.settings.idle, state.settings.max_body_time);
        match extract::media_type(request.headers()).as_deref() {
            Some("multipart/form-data") => from_form(request, query, state, pace).await,
            _ => from_body(request, query, state, pace).await,
        }
    }
}

async fn from_form(request: Request, query: DatasetQuery, state: &State, pace: Pace) -> Answer<Incoming> {
    let expect = Expect {
        json_part: "options",
        file_part: "dataset",
        max_json: state.settings.max_json_bytes,
        max_file: state.settings.max_dataset_bytes,
        pace,
        folder: &state.folder.temporary(),
    };
    let form = form::read::<DatasetRequest>(request, &expect).await?;
    let upload =
        form.file.ok_or_else(|| Error::invalid("dataset_missing", "the form has no part \"dataset\": add the file"))?;
    let mut wanted = form.json.unwrap_or_default();
    wanted.format = wanted.format.or(query.format);
    Ok(incoming(upload, wanted)?)
}

async fn from_body(request: Request, query: DatasetQuery, state: &State, pace: Pace) -> Answer<Incoming> {
    let limit = state.settings.max_dataset_bytes;
    extract::refuse_announced(request.headers(), "the file", limit)?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let origin = Origin::new(query.file_name.as_deref(), content_type);
    let wanted = DatasetRequest { format: query.format, ..DatasetRequest::default() };
    // refused before the upload rather than after it
    format_of(&wanted, &origin)?;
    let pieces = extract::pieces(request.into_body());
    let upload = upload::receive(pieces, origin, limit, pace, &state.folder.temporary()).await?;
    Ok(incoming(upload, wanted)?)
}

fn incoming(upload: Upload, wanted: DatasetRequest) -> Result<Incoming> {
    let format = format_of(&wanted, &upload.origin)?;
    let options = Options { format, columns: wanted.columns, on_bad_rows: wanted.on_bad_rows };
    Ok(Incoming { upload, options, task: wanted.task })
}

fn format_of(wanted: &DatasetRequest, origin: &Origin) -> Result<Format> {
    check::format(wanted.format, origin.file_name.as_deref(), origin.content_type.as_deref())
}
