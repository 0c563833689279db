//! Deletes everything that belongs to an owner: jobs stop first, then rows go, then the files that no row refers to.
//!
//! Each step can be repeated. A deletion that a crash has interrupted is finished by the next call, or by retention.

use super::blobs::BlobStore;
use super::errors;
use super::interface::Store;
use super::model::{DeletedFile, DeletedOwnerRows, OwnerDeletion, PageRequest, Status};
use espalier_core::error::Result;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Time in which running jobs have to stop. It is shorter than the default deadline of a request.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Deletes everything of the owner, and returns the receipt. Files that another owner refers to stay.
///
/// # Errors
/// `Busy` (`owner_jobs_running`) if a running job does not stop in time. Nothing is deleted then; the jobs stay cancelled.
pub async fn delete(store: &Arc<dyn Store>, blobs: &Arc<BlobStore>, owner: &str) -> Result<OwnerDeletion> {
    let started_at = store.now().await?;
    store.begin_owner_deletion(owner).await?;
    let cancelled_jobs = stop_jobs(store.as_ref(), owner).await?.into_iter().collect();
    let mut deleted = DeletedOwnerRows::default();
    loop {
        let mut rows = store.delete_owner_rows(owner).await?;
        if rows.is_empty() {
            break;
        }
        mark_shared(&mut rows.datasets);
        mark_shared(&mut rows.adapters);
        remove_files(blobs, &rows).await?;
        deleted.append(rows);
    }
    store.reclaim_space().await?;
    store.finish_owner_deletion(owner).await?;
    let receipt = OwnerDeletion {
        owner: owner.to_string(),
        dry_run: false,
        started_at,
        finished_at: store.now().await?,
        cancelled_jobs,
        bytes: deleted_bytes(&deleted),
        deleted,
    };
    tracing::info!(owner, rows = ?receipt.deleted.rows, bytes = receipt.bytes, "deleted everything of an owner");
    Ok(receipt)
}

/// Receipt of a deletion that would be made now.
pub async fn preview(store: &dyn Store, owner: &str) -> Result<OwnerDeletion> {
    let started_at = store.now().await?;
    let deleted = store.find_owner_rows(owner).await?;
    let mut cancelled_jobs = Vec::new();
    for status in Status::ALL.into_iter().filter(|status| !status.is_terminal()) {
        let page = PageRequest { limit: u32::MAX, after: None };
        cancelled_jobs.extend(store.jobs(owner, Some(status), page).await?.iter().map(|job| job.id));
    }
    let finished_at = store.now().await?;
    let bytes = deleted_bytes(&deleted);
    Ok(OwnerDeletion {
        owner: owner.to_string(),
        dry_run: true,
        started_at,
        finished_at,
        cancelled_jobs,
        bytes,
        deleted,
    })
}

/// Cancels the unfinished jobs of the owner, and waits until their workers have stopped. Returns the jobs.
async fn stop_jobs(store: &dyn Store, owner: &str) -> Result<BTreeSet<Uuid>> {
    let started = Instant::now();
    let mut cancelled = BTreeSet::new();
    loop {
        cancelled.extend(store.cancel_owner_jobs(owner).await?);
        let page = PageRequest { limit: 1, after: None };
        if store.jobs(owner, Some(Status::Running), page).await?.is_empty() {
            return Ok(cancelled);
        }
        if started.elapsed() > STOP_TIMEOUT {
            return Err(errors::owner_jobs_running(owner));
        }
        tokio::time::sleep(STOP_POLL_INTERVAL).await;
    }
}

/// While the first of two equal files was deleted, the second one referred to it.
fn mark_shared(files: &mut [DeletedFile]) {
    let unshared: HashSet<String> = files.iter().filter(|file| !file.shared).map(|file| file.sha256.clone()).collect();
    files.iter_mut().for_each(|file| file.shared = !unshared.contains(&file.sha256));
}

async fn remove_files(blobs: &BlobStore, rows: &DeletedOwnerRows) -> Result<()> {
    for job in &rows.jobs {
        blobs.remove_checkpoints(*job).await?;
    }
    for file in rows.datasets.iter().filter(|file| !file.shared) {
        blobs.remove_dataset(&file.sha256).await?;
    }
    for file in rows.adapters.iter().filter(|file| !file.shared) {
        blobs.remove_adapter(&file.sha256).await?;
    }
    // Features do not name their dataset. Those of other owners are computed again.
    blobs.clear_feature_cache().await
}

/// Size of the files that are deleted, each counted once.
fn deleted_bytes(rows: &DeletedOwnerRows) -> u64 {
    let mut counted = HashSet::new();
    let files = rows.datasets.iter().chain(&rows.adapters).filter(|file| !file.shared);
    files.filter(|file| counted.insert(&file.sha256)).map(|file| file.bytes).sum()
}
