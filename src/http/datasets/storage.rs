//! Inserts and deletes datasets: the file and its row.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::http::upload::Upload;
use crate::store::{Dataset, NewDataset};
use espalier_core::dataset::{Options, Report};
use espalier_core::error::Result;
use std::sync::Arc;
use uuid::Uuid;

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
    let (folder, blob_hash) = (Arc::clone(&state.data_dir), hash.clone());
    run_blocking("storing a dataset", move || folder.put_dataset(upload.path(), &blob_hash)).await?;
    let started_at = state.store.now().await?;
    let new_dataset = NewDataset { owner: owner.to_string(), file_name, hash, bytes, options, report };
    let dataset = state.store.add_dataset(new_dataset).await?;
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
    let folder = Arc::clone(&state.data_dir);
    run_blocking("deleting a dataset's file", move || folder.remove_dataset(&hash)).await
}

/// Deletes a dataset that was inserted for a job that could not be queued. If that fails, the dataset remains and can be listed
/// and deleted like any other.
pub async fn rollback(state: &AppState, owner: &str, id: Uuid) {
    if let Err(error) = delete(state, owner, id).await {
        tracing::warn!(dataset = %id, error = %error, "dataset of a rejected job was not deleted");
    }
}
