//! What a client sends to bring an adapter of its own: a form, or the zip itself as the body.
//!
//! Knows nothing of what a zip holds.

use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, BodyTimeouts, QueryParams};
use crate::http::multipart::{self, FormSpec};
use crate::http::resource_name::Name;
use crate::http::state::AppState;
use crate::http::upload::{self, Binary, FileMetadata, Upload};
use axum::extract::{FromRequest, FromRequestParts, Request};
use espalier_core::artifact::ImportRequest;
use espalier_core::error::Error;
use espalier_core::model::Pooling;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// What a plain PEFT folder leaves open. Our own exports say it all but the name.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"name": "sentiment", "labels": ["negative", "positive"], "base": "sentence-transformers/all-MiniLM-L6-v2"}))]
pub struct AdapterRequest {
    /// Will point to the adapter.
    pub name: Option<Name>,
    /// In the order of the head's rows.
    pub labels: Option<Vec<String>>,
    /// The base model it was trained on, where its configuration does not say it or says it otherwise.
    pub base: Option<String>,
    /// How its head reads a sequence; `cls` for classification models of transformers, and the default for them.
    pub pooling: Option<Pooling>,
    /// Tokens; longer inputs are truncated. By default as many as the base can read.
    pub max_length: Option<usize>,
}

/// A zip and what it does not say itself.
#[derive(ToSchema)]
pub struct AdapterForm {
    /// The zip.
    pub adapter: Binary,
    /// Everything may be left out.
    pub options: Option<AdapterRequest>,
}

/// For a zip that is sent as the body itself.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AdapterQuery {
    /// Will point to the adapter, where the zip is the body itself.
    #[param(value_type = Option<String>, example = "sentiment")]
    pub name: Option<Name>,
}

/// An uploaded zip and what was said with it.
pub struct AdapterUpload {
    pub upload: Upload,
    pub name: Option<String>,
    pub import: ImportRequest,
}

impl FromRequest<AppState> for AdapterUpload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let (mut parts, body) = request.into_parts();
        let QueryParams(query) = QueryParams::<AdapterQuery>::from_request_parts(&mut parts, state).await?;
        let request = Request::from_parts(parts, body);
        let timeouts = BodyTimeouts::new(state.settings.body_idle_timeout, state.settings.body_total_timeout);
        match extract::media_type(request.headers()).as_deref() {
            Some("multipart/form-data") => from_form(request, query, state, timeouts).await,
            Some("application/zip" | "application/x-zip-compressed" | "application/octet-stream") => {
                from_body(request, query, state, timeouts).await
            }
            _ => Err(ApiError::unsupported_media_type(
                "send application/zip, or multipart/form-data with the parts adapter and options",
            )),
        }
    }
}

async fn from_form(
    request: Request,
    query: AdapterQuery,
    state: &AppState,
    timeouts: BodyTimeouts,
) -> ApiResult<AdapterUpload> {
    let spec = FormSpec {
        json_part: "options",
        file_part: "adapter",
        max_json_bytes: state.settings.max_json_bytes,
        max_file_bytes: state.settings.max_adapter_bytes,
        timeouts,
        temp_dir: &state.data_dir.temp_dir(),
    };
    let form = multipart::read_form::<AdapterRequest>(request, &spec).await?;
    let upload =
        form.file.ok_or_else(|| Error::invalid("adapter_missing", "the form has no part \"adapter\": add the zip"))?;
    let AdapterRequest { name, labels, base, pooling, max_length } = form.json.unwrap_or_default();
    let name = name.or(query.name).map(Name::into_string);
    Ok(AdapterUpload { upload, name, import: ImportRequest { labels, base, pooling, max_length } })
}

async fn from_body(
    request: Request,
    query: AdapterQuery,
    state: &AppState,
    timeouts: BodyTimeouts,
) -> ApiResult<AdapterUpload> {
    let limit = state.settings.max_adapter_bytes;
    extract::check_content_length(request.headers(), "the zip", limit)?;
    let chunks = extract::body_chunks(request.into_body());
    let upload =
        upload::stream_to_disk(chunks, FileMetadata::default(), limit, timeouts, &state.data_dir.temp_dir()).await?;
    Ok(AdapterUpload { upload, name: query.name.map(Name::into_string), import: ImportRequest::default() })
}
