//! Import of an adapter, and deletion of one.

use super::import_request::{AdapterImport, ImportContent};
use super::source;
use crate::http::auth::Caller;
use crate::http::spawn::{run_blocking, spawn_detached};
use crate::http::state::AppState;
use crate::store::{Adapter, AdapterDescription, NewAdapter, Reference};
use espalier_core::artifact::{self, AdapterManifest, Artifact, ImportRequest, ImportSource, PublishedAdapter};
use espalier_core::error::{Context, Result};
use std::path::Path;
use std::sync::Arc;

/// How an adapter was imported, in the field `provenance.origin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Import,
    /// By `/v1/load_lora_adapter`.
    LoadLoraAdapter,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::LoadLoraAdapter => "load_lora_adapter",
        }
    }
}

/// Imports the adapter of a request. If an earlier attempt of the request has done so, that adapter is returned.
///
/// # Errors
/// As [`import_source`]; as [`source::locate`] for a source.
pub async fn import_adapter(state: &AppState, caller: &Caller, request: AdapterImport) -> Result<Adapter> {
    if let Some(adapter) = find_created(state, caller).await? {
        return Ok(adapter);
    }
    let AdapterImport { content, name, import } = request;
    match content {
        ImportContent::Upload(upload) => {
            let archive = ImportSource::Archive(upload.path().to_path_buf());
            let imported = import_source(state, caller, archive, name, import, Origin::Import).await;
            // Deletes the uploaded file.
            drop(upload);
            imported
        }
        ImportContent::Source(uri) => {
            let found = source::locate(state, uri).await?;
            import_source(state, caller, found, name, import, Origin::Import).await
        }
    }
}

/// Finds the adapter that an earlier attempt of the request has imported.
pub async fn find_created(state: &AppState, caller: &Caller) -> Result<Option<Adapter>> {
    let reference = Reference::Id(caller.new_object_id.get());
    caller.new_object_id.find_created(state.store.adapter(&caller.owner, &reference)).await
}

/// Validates an adapter, writes its folder, then inserts its row.
///
/// # Errors
/// `Invalid` if the archive or folder, or the adapter in it, is invalid.
pub async fn import_source(
    state: &AppState,
    caller: &Caller,
    source: ImportSource,
    name: Option<String>,
    import: ImportRequest,
    origin: Origin,
) -> Result<Adapter> {
    caller.check_new_name(name.as_deref())?;
    let permit =
        Arc::clone(&state.concurrency.validations).acquire_owned().await.context("waiting to validate an adapter")?;
    let (base, folder) = (Arc::clone(&state.base), Arc::clone(&state.data_dir));
    let settings = state.artifact_settings;
    let artifact = run_blocking("importing an adapter", move || {
        let _permit = permit;
        artifact::import_source(&source, &import, &base, &folder.temp_dir(), &settings)
    });
    let artifact = artifact.await?;
    let (state, caller) = (state.clone(), caller.clone());
    let publication = async move { persist_adapter(&state, &caller, name, artifact, origin).await };
    spawn_detached("publishing an adapter", publication).await
}

async fn persist_adapter(
    state: &AppState,
    caller: &Caller,
    name: Option<String>,
    artifact: Artifact,
    origin: Origin,
) -> Result<Adapter> {
    let base = Arc::clone(&state.base);
    let manifest = artifact.manifest.clone();
    let write_files =
        move |adapters: &Path, temporary: &Path| artifact::publish_artifact(&artifact, &base, adapters, temporary);
    let (published, reservation) = state.blobs.put_adapter(write_files).await?;
    let description = to_description(manifest, published, origin, &caller.credential.name);
    let new_adapter = NewAdapter {
        id: caller.new_object_id.get(),
        owner: caller.owner.clone(),
        name,
        job_id: None,
        description,
        max_owner_bytes: caller.limits().adapter_bytes,
    };
    // If this fails, garbage collection removes the files.
    let adapter = state.store.add_adapter(new_adapter).await?;
    reservation.release().await;
    Ok(adapter)
}

fn to_description(
    manifest: AdapterManifest,
    written: PublishedAdapter,
    origin: Origin,
    credential: &str,
) -> AdapterDescription {
    let mut provenance =
        serde_json::json!({"origin": origin.as_str(), "base": manifest.base.name, "created_by": credential});
    if !manifest.vocabulary.is_empty() {
        provenance["vocabulary"] = serde_json::json!(manifest.vocabulary);
    }
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
        provenance,
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
    state.blobs.remove_adapter(&version).await
}
