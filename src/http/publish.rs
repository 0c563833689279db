//! The steps from an uploaded zip to an adapter, and from an adapter to nothing.
//!
//! Knows nothing of handlers, nor of what makes an adapter good (`artifact`).

use super::adapters::Incoming;
use super::state::State;
use super::work::{aside, to_the_end};
use crate::store::{Adapter, AdapterDescription, NewAdapter, Reference};
use espalier_core::artifact::{self, Artifact, Published};
use espalier_core::error::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Folder first, row after it.
///
/// # Errors
/// `Invalid` for what is wrong with the zip.
pub async fn publish(state: &State, owner: &str, incoming: Incoming) -> Result<Adapter> {
    let Incoming { upload, name, import } = incoming;
    let turn = Arc::clone(&state.turns.checks).acquire_owned().await.context("waiting to check an adapter")?;
    let (base, folder) = (Arc::clone(&state.base), Arc::clone(&state.folder));
    let settings = state.artifact;
    let artifact = aside("importing an adapter", move || {
        let _turn = turn;
        artifact::import(upload.path(), &import, &base, &folder.temporary(), &settings)
    });
    let artifact = artifact.await?;
    let (state, owner) = (state.clone(), owner.to_string());
    to_the_end("publishing an adapter", async move { keep(&state, owner, name, artifact).await }).await
}

async fn keep(state: &State, owner: String, name: Option<String>, artifact: Artifact) -> Result<Adapter> {
    let (base, folder) = (Arc::clone(&state.base), Arc::clone(&state.folder));
    let description = aside("writing an adapter", move || {
        let write = |adapters: &Path, temporary: &Path| artifact::write(&artifact, &base, adapters, temporary);
        let published = folder.put_adapter(write)?;
        Ok(describe(artifact, published))
    });
    let description = description.await?;
    let new = NewAdapter { id: Uuid::now_v7(), owner, name, job_id: None, description };
    // where this fails, the folder without a row is swept at a later start
    state.store.add_adapter(new).await
}

fn describe(artifact: Artifact, published: Published) -> AdapterDescription {
    let card = artifact.card;
    AdapterDescription {
        version: published.version,
        task: card.task,
        method: card.method,
        labels: card.labels,
        bytes: published.bytes,
        base_verified: card.base.fingerprint.is_some(),
        base: card.base.fingerprint,
        metrics: card.metrics,
        provenance: serde_json::json!({"origin": "import", "base": card.base.name}),
    }
}

/// Row first, then memory, then the folder if no other row needs it.
///
/// # Errors
/// `NotFound`; `Conflict` while a job needs it.
pub async fn delete(state: &State, owner: &str, reference: &Reference) -> Result<()> {
    let adapter = state.store.adapter(owner, reference).await?;
    let Some(version) = state.store.delete_adapter(owner, adapter.id).await? else { return Ok(()) };
    state.serving.forget(&version);
    let folder = Arc::clone(&state.folder);
    aside("deleting an adapter's folder", move || folder.remove_adapter(&version)).await
}
