//! Request of an adapter import: a form, or the zip as the request body.

use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, QueryParams};
use crate::http::multipart::{self, FormSpec};
use crate::http::resource_name::Name;
use crate::http::state::AppState;
use crate::http::upload::{self, Binary, FileMetadata, Upload};
use axum::RequestExt;
use axum::extract::{FromRequest, Request};
use espalier_core::artifact::ImportRequest;
use espalier_core::error::Error;
use espalier_core::model::Pooling;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// Information that PEFT's files do not contain. Zips downloaded from a server of this kind contain all of it but the name.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"name": "sentiment", "labels": ["negative", "positive"], "base": "sentence-transformers/all-MiniLM-L6-v2"}))]
pub struct AdapterRequest {
    /// Name that refers to the adapter.
    pub name: Option<Name>,
    /// Labels in the order of the head's rows.
    pub labels: Option<Vec<String>>,
    /// Base model that the adapter was trained on; overrides the adapter's configuration.
    pub base: Option<String>,
    /// Pooling of the head's input; the default for classification models of `transformers` is `cls`.
    pub pooling: Option<Pooling>,
    /// Maximum number of tokens per input; longer inputs are truncated. Default: the base model's maximum.
    pub max_length: Option<usize>,
}

/// Zip of an adapter's files, and options.
#[derive(ToSchema)]
pub struct AdapterForm {
    /// Zip of the adapter's files.
    pub adapter: Binary,
    /// Options; every field is optional.
    pub options: Option<AdapterRequest>,
}

/// Options of a zip sent as the request body.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AdapterQuery {
    /// Name that refers to the adapter, if the zip is the request body.
    #[param(value_type = Option<String>, example = "sentiment")]
    pub name: Option<Name>,
}

/// Uploaded zip with its options.
pub struct AdapterUpload {
    pub upload: Upload,
    pub name: Option<String>,
    pub import: ImportRequest,
}

impl FromRequest<AppState> for AdapterUpload {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &AppState) -> ApiResult<Self> {
        let QueryParams(query) = request.extract_parts_with_state::<QueryParams<AdapterQuery>, _>(state).await?;
        match extract::media_type(request.headers()).as_deref() {
            Some("multipart/form-data") => from_form(request, query, state).await,
            Some("application/zip" | "application/x-zip-compressed" | "application/octet-stream") => {
                from_body(request, query, state).await
            }
            _ => Err(ApiError::unsupported_media_type(
                "send application/zip, or multipart/form-data with the parts adapter and options",
            )),
        }
    }
}

async fn from_form(request: Request, query: AdapterQuery, state: &AppState) -> ApiResult<AdapterUpload> {
    let spec = FormSpec::new(state, "options", "adapter", state.settings.max_adapter_bytes);
    let form = multipart::read_form::<AdapterRequest>(request, &spec).await?;
    let upload =
        form.file.ok_or_else(|| Error::invalid("adapter_missing", "the form has no part \"adapter\": add the zip"))?;
    let AdapterRequest { name, labels, base, pooling, max_length } = form.json.unwrap_or_default();
    let name = name.or(query.name).map(Name::into_string);
    Ok(AdapterUpload { upload, name, import: ImportRequest { labels, base, pooling, max_length } })
}

async fn from_body(request: Request, query: AdapterQuery, state: &AppState) -> ApiResult<AdapterUpload> {
    let limit = state.settings.max_adapter_bytes;
    let upload = upload::receive_body(state, request, "the zip", FileMetadata::default(), limit).await?;
    Ok(AdapterUpload { upload, name: query.name.map(Name::into_string), import: ImportRequest::default() })
}
