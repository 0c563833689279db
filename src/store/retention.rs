//! Deletes what is no longer kept: old rows first, then the blobs that no row refers to.

use super::blobs::{DataDir, GcReport, LiveBlobs};
use super::interface::Store;
use super::model::{DeletedRows, RetentionPolicy};
use espalier_core::error::{Context, Error, Result};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Minimum age of unreferenced blobs that garbage collection deletes; the row of a younger blob may not be inserted yet.
const GC_MIN_AGE: Duration = Duration::from_secs(3600);

/// Applies the policy now and at every interval.
pub async fn run(
    store: Arc<dyn Store>,
    data_dir: Arc<DataDir>,
    policy: RetentionPolicy,
    interval: Duration,
) -> Infallible {
    loop {
        match apply(&store, &data_dir, &policy).await {
            Ok((rows, blobs)) => log_deletions(&rows, &blobs),
            Err(error) => tracing::warn!(%error, "retention policy not applied; trying again later"),
        }
        tokio::time::sleep(interval).await;
    }
}

fn log_deletions(rows: &DeletedRows, blobs: &GcReport) {
    if *rows == DeletedRows::default() && *blobs == GcReport::default() {
        return;
    }
    tracing::info!(
        jobs = rows.jobs,
        events = rows.events,
        adapters = rows.adapters,
        dataset_files = blobs.datasets,
        adapter_folders = blobs.adapters,
        checkpoint_folders = blobs.checkpoints,
        "deleted what is not kept"
    );
}

/// Applies the policy once. It can run at any time and in several processes at once.
pub async fn apply(
    store: &Arc<dyn Store>,
    data_dir: &Arc<DataDir>,
    policy: &RetentionPolicy,
) -> Result<(DeletedRows, GcReport)> {
    let rows = store.delete_old_rows(policy).await?;
    // Listed before the live jobs are read: a job with checkpoints that is not among those is finished.
    let jobs_with_checkpoints = data_dir.jobs_with_checkpoints()?;
    let live = live_blobs(store.as_ref(), policy.keep_checkpoints).await?;
    let (dir, versions) = (Arc::clone(data_dir), rows.unreferenced_versions.clone());
    let collect = move || {
        versions.iter().try_for_each(|version| dir.remove_adapter(version))?;
        let finished: Vec<Uuid> =
            jobs_with_checkpoints.into_iter().filter(|job| !live.resumable_jobs.contains(job)).collect();
        finished.iter().try_for_each(|job| dir.remove_checkpoints(*job))?;
        let removed = dir.garbage_collect(&live, GC_MIN_AGE)?;
        Ok::<_, Error>(GcReport {
            checkpoints: removed.checkpoints + finished.len(),
            adapters: removed.adapters + versions.len(),
            ..removed
        })
    };
    let blobs = tokio::task::spawn_blocking(collect).await.context("collecting garbage in the data folder")??;
    Ok((rows, blobs))
}

/// Reads which blobs the rows refer to. Call it before a garbage collection, not during one.
pub async fn live_blobs(store: &dyn Store, keep_checkpoints: Duration) -> Result<LiveBlobs> {
    Ok(LiveBlobs {
        dataset_hashes: store.referenced_dataset_hashes().await?.into_iter().collect(),
        adapter_versions: store.referenced_adapter_versions().await?.into_iter().collect(),
        resumable_jobs: store.resumable_jobs(keep_checkpoints).await?.into_iter().collect(),
    })
}
