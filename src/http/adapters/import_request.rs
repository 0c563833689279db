//! Requests that import an adapter: a form, an archive as the request body, or JSON that names a source.

use super::source::SourceUri;
use crate::http::body_timeouts::BodyTimeouts;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, QueryParams};
use crate::http::multipart::{self, FormSpec};
use crate::http::resource_name::Name;
use crate::http::state::AppState;
use crate::http::upload::{self, Binary, FileMetadata, Upload};
use axum::RequestExt;
use axum::extract::{FromRequest, Request};
use espalier_core::artifact::ImportRequest;
use espalier_core::error::{Error, Result};
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

/// Archive of an adapter's files, and options.
#[derive(ToSchema)]
pub struct AdapterForm {
    /// Zip or `.tar.gz` of the adapter's files.
    pub adapter: Binary,
    /// Options; every field is optional.
    pub options: Option<AdapterRequest>,
}

/// Source of an adapter, and options.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"source": "hub:owner/name@main", "name": "sentiment", "labels": ["negative", "positive"]}))]
pub struct AdapterSourceRequest {
    /// `hub:owner/name` or `hub:owner/name@revision` for a repository on the Hugging Face Hub; `path:folder/adapter` for a folder or
    /// archive below the server's `--adapter-import-folder`.
    pub source: String,
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

/// Options beside a body. A field is stated here or in the body, not in both.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AdapterQuery {
    /// Name that refers to the adapter.
    #[param(value_type = Option<String>, example = "sentiment")]
    pub name: Option<Name>,
    /// Labels in the order of the head's rows, separated by commas, or a JSON list.
    #[param(example = "negative,positive")]
    pub labels: Option<String>,
    /// Base model that the adapter was trained on; overrides the adapter's configuration.
    pub base: Option<String>,
    /// Pooling of the head's input; the default for classification models of `transformers` is `cls`.
    #[param(inline)]
    pub pooling: Option<Pooling>,
    /// Maximum number of tokens per input; longer inputs are truncated. Default: the base model's maximum.
    pub max_length: Option<usize>,
}

/// Request to import an adapter.
pub struct AdapterImport {
    pub content: ImportContent,
    pub name: Option<String>,
    pub import: ImportRequest,
}

/// The files of an adapter, or where they are.
pub enum ImportContent {
    Upload(Upload),
    Source(SourceUri),
}

impl FromRequest<AppState> for AdapterImport {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &AppState) -> ApiResult<Self> {
        let QueryParams(query) = request.extract_parts_with_state::<QueryParams<AdapterQuery>, _>(state).await?;
        let query = query.into_options()?;
        let (content, options) = match extract::media_type(request.headers()).as_deref() {
            Some("multipart/form-data") => from_form(request, state).await?,
            Some("application/json") => from_source(request, state).await?,
            Some(
                "application/zip"
                | "application/x-zip-compressed"
                | "application/gzip"
                | "application/x-gzip"
                | "application/x-tar"
                | "application/x-gtar"
                | "application/octet-stream",
            ) => from_body(request, state).await?,
            _ => {
                return Err(ApiError::unsupported_media_type(
                    "send application/zip, application/gzip (a .tar.gz), application/json with a source, or \
                     multipart/form-data with the parts adapter and options",
                ));
            }
        };
        let AdapterRequest { name, labels, base, pooling, max_length } = options.merge(query)?;
        let import = ImportRequest { labels, base, pooling, max_length };
        Ok(Self { content, name: name.map(Name::into_string), import })
    }
}

async fn from_form(request: Request, state: &AppState) -> ApiResult<(ImportContent, AdapterRequest)> {
    let spec = FormSpec::new(state, "options", "adapter", state.settings.max_adapter_bytes);
    let form = multipart::read_form::<AdapterRequest>(request, spec).await?;
    let upload = form
        .file
        .ok_or_else(|| Error::invalid("adapter_missing", "the form has no part \"adapter\": add the zip or .tar.gz"))?;
    Ok((ImportContent::Upload(upload), form.json.unwrap_or_default()))
}

async fn from_source(request: Request, state: &AppState) -> ApiResult<(ImportContent, AdapterRequest)> {
    let timeouts = BodyTimeouts::start(&state.settings);
    let body = extract::read_json_body(request, state.settings.max_json_bytes, timeouts).await?;
    let AdapterSourceRequest { source, name, labels, base, pooling, max_length } = body;
    let options = AdapterRequest { name, labels, base, pooling, max_length };
    Ok((ImportContent::Source(SourceUri::parse(&source)?), options))
}

async fn from_body(request: Request, state: &AppState) -> ApiResult<(ImportContent, AdapterRequest)> {
    let limit = state.settings.max_adapter_bytes;
    let upload = upload::receive_body(state, request, "the archive", FileMetadata::default(), limit).await?;
    Ok((ImportContent::Upload(upload), AdapterRequest::default()))
}

impl AdapterQuery {
    /// # Errors
    /// `Invalid` (`invalid_query`) if `labels` starts with `[` and is not a JSON list of texts.
    fn into_options(self) -> Result<AdapterRequest> {
        let Self { name, labels, base, pooling, max_length } = self;
        Ok(AdapterRequest { name, labels: labels.map(parse_labels).transpose()?, base, pooling, max_length })
    }
}

fn parse_labels(text: String) -> Result<Vec<String>> {
    match text.starts_with('[') {
        true => serde_json::from_str(&text).map_err(|error| {
            let detail = format!("the query is wrong: labels: {error}: write a,b or [\"a\",\"b\"]");
            Error::invalid("invalid_query", detail)
        }),
        false => Ok(text.split(',').map(|label| label.trim().to_string()).collect()),
    }
}

impl AdapterRequest {
    /// # Errors
    /// `Invalid` (`invalid_query`) for a field that both state.
    fn merge(self, query: Self) -> Result<Self> {
        Ok(Self {
            name: merge_field("name", self.name, query.name)?,
            labels: merge_field("labels", self.labels, query.labels)?,
            base: merge_field("base", self.base, query.base)?,
            pooling: merge_field("pooling", self.pooling, query.pooling)?,
            max_length: merge_field("max_length", self.max_length, query.max_length)?,
        })
    }
}

fn merge_field<T>(field: &str, in_body: Option<T>, in_query: Option<T>) -> Result<Option<T>> {
    match (in_body, in_query) {
        (Some(_), Some(_)) => {
            let detail = format!("the query and the body both say {field}: leave one out");
            Err(Error::invalid("invalid_query", detail))
        }
        (in_body, in_query) => Ok(in_body.or(in_query)),
    }
}
