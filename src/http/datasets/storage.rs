//! A checked file stays, or goes: the blob and its row.
//!
//! Knows nothing of requests.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::http::upload::Upload;
use crate::store::{Dataset, NewDataset};
use espalier_core::dataset::{Options, Report};
use espalier_core::error::Result;
use std::sync::Arc;
use uuid::Uuid;

/// Whether a dataset's row is of this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    Created,
    Existing,
}

/// The file under its hash first, then the row. A dataset that this owner has already is answered instead.
///
/// # Errors
/// Those of the disk and the store.
pub async fn insert_or_get(
    state: &AppState,
    owner: &str,
    upload: Upload,
    options: Options,
    report: Report,
) -> Result<(Dataset, InsertOutcome)> {
    let (hash, bytes, file_name) = (upload.hash.clone(), upload.bytes, upload.metadata.file_name.clone());
    let (folder, blob_hash) = (Arc::clone(&state.data_dir), hash.clone());
    run_blocking("keeping a dataset", move || folder.put_dataset(upload.path(), &blob_hash)).await?;
    let started_at = state.store.now().await?;
    let new_dataset = NewDataset { owner: owner.to_string(), file_name, hash, bytes, options, report };
    let dataset = state.store.add_dataset(new_dataset).await?;
    // a row that is older than this request is one that it only found
    let outcome = if dataset.created_at >= started_at { InsertOutcome::Created } else { InsertOutcome::Existing };
    Ok((dataset, outcome))
}

/// Deletes the row, and its file if no other row needs it.
///
/// # Errors
/// `NotFound`; `Conflict` while a job needs it.
pub async fn delete(state: &AppState, owner: &str, id: Uuid) -> Result<()> {
    let Some(hash) = state.store.delete_dataset(owner, id).await? else { return Ok(()) };
    let folder = Arc::clone(&state.data_dir);
    run_blocking("deleting a dataset's file", move || folder.remove_dataset(&hash)).await
}

/// Takes back what [`keep`] has just stored for a job that could not be queued. Where that fails, the dataset stays and
/// can be seen and deleted as any other.
pub async fn rollback(state: &AppState, owner: &str, id: Uuid) {
    if let Err(error) = delete(state, owner, id).await {
        tracing::warn!(dataset = %id, error = %error, "dataset of a refused job is kept");
    }
}
