//! Changes of a job's status that its owner asks for.

use crate::http::auth::Caller;
use crate::http::spawn::run_blocking;
use crate::http::state::{AppState, Settings};
use crate::store::Job;
use espalier_core::error::{Error, Problem, Result};
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
    Ok(job)
}

/// Calls with the number of jobs that the caller may have in the queue: its own quota, or the limit of the server.
///
/// # Errors
/// `QuotaExceeded` (`queued_jobs_exceeded`) where the caller's own quota is used up; the other errors of the call.
pub async fn within_quota<T, F: Future<Output = Result<T>>>(
    caller: &Caller,
    settings: &Settings,
    call: impl FnOnce(u64) -> F,
) -> Result<T> {
    let quota = caller.limits().queued_jobs.filter(|quota| *quota < settings.max_queued_jobs);
    match (call(quota.unwrap_or(settings.max_queued_jobs)).await, quota) {
        (Err(Error::Busy { problem, .. }), Some(quota)) if problem.code == "queue_full" => {
            let detail = format!("you have {quota} queued jobs, which is your limit: wait until one has started");
            Err(Error::QuotaExceeded(Problem::new("queued_jobs_exceeded", detail)))
        }
        (result, _) => result,
    }
}
