//! Import of an uploaded adapter, and deletion of an adapter.

use super::request::AdapterUpload;
use crate::http::spawn::{run_blocking, spawn_detached};
use crate::http::state::AppState;
use crate::store::{Adapter, AdapterDescription, NewAdapter, Reference};
use espalier_core::artifact::{self, Artifact, PublishedAdapter};
use espalier_core::error::{Context, Result};
use std::path::Path;
use std::sync::Arc;
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
