//! Deletes what is no longer kept: old rows first, then the blobs that no row refers to.

use super::blobs::{BlobStore, GcAction, GcReport, LiveBlobs};
use super::interface::Store;
use super::model::{DeletedRows, RetentionPolicy};
use super::owner_deletion;
use espalier_core::error::Result;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Minimum age of unreferenced blobs that garbage collection deletes; the row of a younger blob may not be inserted yet.
const GC_MIN_AGE: Duration = Duration::from_secs(3600);

/// Age at which the deletion of an owner counts as interrupted.
const OWNER_DELETION_TIMEOUT: Duration = Duration::from_secs(600);

/// What a retention policy deletes, or would delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RetentionReport {
    /// Rows, with the files that these were the last to refer to.
    pub rows: DeletedRows,
    /// Files that no row referred to before.
    pub files: GcReport,
}

/// Applies the policy now and at every interval.
pub async fn run(
    store: Arc<dyn Store>,
    blobs: Arc<BlobStore>,
    policy: RetentionPolicy,
    interval: Duration,
) -> Infallible {
    loop {
        match apply(&store, &blobs, &policy).await {
            Ok(report) => log_deletions(&report),
            Err(error) => tracing::warn!(%error, "retention policy not applied; trying again later"),
        }
        tokio::time::sleep(interval).await;
    }
}

fn log_deletions(report: &RetentionReport) {
    if *report == RetentionReport::default() {
        return;
    }
    let RetentionReport { rows, files } = report;
    tracing::info!(
        jobs = rows.jobs.count,
        events = rows.events,
        datasets = rows.datasets.count,
        adapters = rows.adapters.count,
        unreferenced_dataset_files = files.datasets,
        unreferenced_adapter_folders = files.adapters,
        checkpoint_folders = files.checkpoints,
        bytes = rows.datasets.bytes + rows.adapters.bytes + files.bytes,
        "deleted what is not kept"
    );
}

/// Applies the policy once. It can run at any time and in several processes at once.
pub async fn apply(
    store: &Arc<dyn Store>,
    blobs: &Arc<BlobStore>,
    policy: &RetentionPolicy,
) -> Result<RetentionReport> {
    for owner in store.unfinished_owner_deletions(OWNER_DELETION_TIMEOUT).await? {
        if let Err(error) = owner_deletion::delete(store, blobs, &owner).await {
            tracing::warn!(%error, owner, "interrupted deletion of an owner not finished; trying again later");
        }
    }
    let rows = store.delete_old_rows(policy).await?;
    for hash in &rows.unreferenced_hashes {
        blobs.remove_dataset(hash).await?;
    }
    for version in &rows.unreferenced_versions {
        blobs.remove_adapter(version).await?;
    }
    let files = collect_garbage(store, blobs, policy, GcAction::Remove).await?;
    store.reclaim_space().await?;
    Ok(RetentionReport { rows, files })
}

/// Finds what [`apply`] would delete now.
pub async fn preview(
    store: &Arc<dyn Store>,
    blobs: &Arc<BlobStore>,
    policy: &RetentionPolicy,
) -> Result<RetentionReport> {
    let rows = store.find_old_rows(policy).await?;
    let files = collect_garbage(store, blobs, policy, GcAction::Report).await?;
    Ok(RetentionReport { rows, files })
}

async fn collect_garbage(
    store: &Arc<dyn Store>,
    blobs: &Arc<BlobStore>,
    policy: &RetentionPolicy,
    action: GcAction,
) -> Result<GcReport> {
    // Listed before the live jobs are read: a job with checkpoints that is not among those is finished.
    let mut finished = blobs.checkpoint_bytes().await?;
    let mut live = live_blobs(store.as_ref(), policy.keep_checkpoints).await?;
    finished.retain(|job, _| !live.resumable_jobs.contains(job));
    if action == GcAction::Remove {
        for job in finished.keys() {
            blobs.remove_checkpoints(*job).await?;
        }
    }
    let (checkpoints, checkpoint_bytes) = (finished.len(), finished.values().sum::<u64>());
    live.resumable_jobs.extend(finished.into_keys());
    let found = blobs.collect_garbage(Arc::new(live), GC_MIN_AGE, action).await?;
    Ok(GcReport { checkpoints: found.checkpoints + checkpoints, bytes: found.bytes + checkpoint_bytes, ..found })
}

/// Reads which blobs the rows refer to. Call it before a garbage collection, not during one.
pub async fn live_blobs(store: &dyn Store, keep_checkpoints: Duration) -> Result<LiveBlobs> {
    Ok(LiveBlobs {
        dataset_hashes: store.referenced_dataset_hashes().await?.into_iter().collect(),
        adapter_versions: store.referenced_adapter_versions().await?.into_iter().collect(),
        resumable_jobs: store.resumable_jobs(keep_checkpoints).await?.into_iter().collect(),
    })
}
