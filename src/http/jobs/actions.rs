//! Changes of a job's status that its owner asks for.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::store::Job;
use espalier_core::error::Result;
use std::sync::Arc;
use uuid::Uuid;

/// Cancels a queued or paused job at once; requests the cancellation of a running one.
///
/// # Errors
/// `NotFound`; `Conflict` (`job_over`).
pub async fn cancel(state: &AppState, owner: &str, id: Uuid) -> Result<Job> {
    let job = state.store.cancel_job(owner, id).await?;
    if job.status.is_terminal() {
        // The job was not running, so no worker removes its checkpoints.
        let folder = Arc::clone(&state.data_dir);
        run_blocking("removing a job's checkpoints", move || folder.remove_checkpoints(id)).await?;
    }
    Ok(job)
}

/// Queues a paused job again, or withdraws a requested pause.
///
/// # Errors
/// `NotFound`; `Conflict` (`job_not_paused`).
pub async fn resume(state: &AppState, owner: &str, id: Uuid) -> Result<Job> {
    let job = state.store.resume_job(owner, id).await?;
    (state.notify_workers)();
    Ok(job)
}
