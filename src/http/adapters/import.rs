//! Import of an uploaded adapter (a form, or the zip as the request body), and deletion of an adapter.

use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, QueryParams};
use crate::http::multipart::{self, FormSpec};
use crate::http::resource_name::Name;
use crate::http::spawn::{run_blocking, spawn_detached};
use crate::http::state::AppState;
use crate::http::upload::{self, Binary, FileMetadata, Upload};
use crate::store::{Adapter, AdapterDescription, NewAdapter, Reference};
use axum::RequestExt;
use axum::extract::{FromRequest, Request};
use espalier_core::artifact::{self, Artifact, ImportRequest, PublishedAdapter};
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::Pooling;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Validates the zip, writes the adapter's folder, then inserts its row.
///
/// # Errors
/// `Invalid` if the zip or the adapter in it is invalid.
pub async fn import_adapter(state: &AppState, owner: &str, upload: AdapterUpload) -> Result<Adapter> {
    let AdapterUpload { upload, name, import } = upload;
    let permit =
        Arc::clone(&state.concurrency.validations).acquire_owned().await.context("waiting to validate an adapter")?;
    let (base, folder) = (Arc::clone(&state.base), Arc::clone(&state.data_dir));
    let settings = state.artifact_settings;
    let artifact = run_blocking("importing an adapter", move || {
        let _permit = permit;
        artifact::import(upload.path(), &import, &base, &folder.temp_dir(), &settings)
    });
    let artifact = artifact.await?;
    let (state, owner) = (state.clone(), owner.to_string());
    spawn_detached("publishing an adapter", async move { persist_adapter(&state, owner, name, artifact).await }).await
}

async fn persist_adapter(state: &AppState, owner: String, name: Option<String>, artifact: Artifact) -> Result<Adapter> {
    let (base, folder) = (Arc::clone(&state.base), Arc::clone(&state.data_dir));
    let description = run_blocking("writing an adapter", move || {
        let write_files =
            |adapters: &Path, temporary: &Path| artifact::publish_artifact(&artifact, &base, adapters, temporary);
        let published = folder.put_adapter(write_files)?;
        Ok(to_description(artifact, published))
    });
    let description = description.await?;
    let new_adapter = NewAdapter { id: Uuid::now_v7(), owner, name, job_id: None, description };
    // If this fails, garbage collection at a later start removes the folder.
    state.store.add_adapter(new_adapter).await
}

fn to_description(artifact: Artifact, written: PublishedAdapter) -> AdapterDescription {
    let manifest = artifact.manifest;
    AdapterDescription {
        version: written.version,
        task: manifest.task,
        method: manifest.method,
        labels: manifest.labels,
        max_length: Some(manifest.max_length),
        bytes: written.total_bytes,
        base_verified: manifest.base.fingerprint.is_some(),
        base_fingerprint: manifest.base.fingerprint,
        metrics: manifest.metrics,
        provenance: serde_json::json!({"origin": "import", "base": manifest.base.name}),
    }
}

/// Deletes the row, removes the adapter from the cache, and deletes the folder if no other row refers to it.
///
/// # Errors
/// `NotFound`; `Conflict` if an unfinished job starts from it.
pub async fn delete_adapter(state: &AppState, owner: &str, reference: &Reference) -> Result<()> {
    let adapter = state.store.adapter(owner, reference).await?;
    let Some(version) = state.store.delete_adapter(owner, adapter.id).await? else { return Ok(()) };
    state.serving.invalidate_adapter(&version);
    let folder = Arc::clone(&state.data_dir);
    run_blocking("deleting an adapter's folder", move || folder.remove_adapter(&version)).await
}

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
    let form = multipart::read_form::<AdapterRequest>(request, spec).await?;
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
