//! Attempts that fail: deaths of the process, internal errors and faults of the environment, each with its backoff; retries.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{AttemptFault, JobError, RequestedAction, Status, Store};
use espalier_core::error::Error;
use std::time::Duration;

on_both_databases!(
    three_deaths_of_the_process_fail_the_job,
    job_goes_on_at_once_after_the_first_death_and_waits_after_the_next,
    exhausted_job_does_not_block_the_queue,
    new_checkpoint_resets_the_counts,
    checkpoint_of_an_earlier_attempt_does_not_reset_the_counts,
    requeued_attempt_is_not_counted,
    lost_lease_of_the_same_process_is_not_counted,
    reported_lost_lease_is_not_counted,
    internal_error_is_counted_and_kept_until_the_next_attempt,
    fault_of_the_environment_is_not_counted,
    paused_attempt_is_not_counted,
    failed_job_is_retried_from_its_checkpoint,
    job_that_cannot_be_retried_is_rejected,
);

/// More than the longest backoff.
const BACKOFF: Duration = Duration::from_secs(600);

/// Claims the job as a new process and lets the lease expire, `times` times.
async fn expire_attempts(store: &dyn Store, times: u32) {
    for _ in 0..times {
        claim_after_backoff(store).await.expect("the job is claimed");
        expire_leases(store).await;
    }
}

/// Claims as a new process; if the job has to wait after a failed attempt, claims after that time.
async fn claim_after_backoff(store: &dyn Store) -> Option<espalier::store::ClaimedJob> {
    match claim(store).await {
        Some(claimed) => Some(claimed),
        None => {
            store.advance_clock(BACKOFF).await.unwrap();
            claim(store).await
        }
    }
}

async fn three_deaths_of_the_process_fail_the_job(db: &Database) {
    let job = add_job(&**db).await;
    expire_attempts(&**db, 3).await;
    assert!(claim_after_backoff(&**db).await.is_none());
    let failed = super::helpers::job(&**db, job.id).await;
    assert_eq!((failed.status, failed.attempt), (Status::Failed, 3));
    let error = failed.error.unwrap();
    assert_eq!(error.code, "attempts_exhausted");
    assert!(error.detail.starts_with("3 attempts in a row ended without a new checkpoint because"), "{}", error.detail);
    assert!(failed.finished_at.is_some());
    assert_eq!(status_history(&**db, job.id).await, ["queued", "running", "running", "queued", "running", "failed"]);
}

async fn job_goes_on_at_once_after_the_first_death_and_waits_after_the_next(db: &Database) {
    let job = add_job(&**db).await;
    expire_attempts(&**db, 1).await;
    assert!(claim(&**db).await.is_some());
    expire_leases(&**db).await;
    assert!(claim(&**db).await.is_none());
    let waiting = super::helpers::job(&**db, job.id).await;
    assert_eq!(waiting.status, Status::Queued);
    let delay = waiting.next_attempt_at.expect("the job waits") - db.now().await.unwrap();
    assert!(delay <= chrono::TimeDelta::seconds(1), "{delay}");
    db.advance_clock(Duration::from_secs(2)).await.unwrap();
    let claimed = claim(&**db).await.expect("the wait is over");
    assert_eq!(claimed.job.next_attempt_at, None);
}

async fn exhausted_job_does_not_block_the_queue(db: &Database) {
    let exhausted = add_job(&**db).await;
    expire_attempts(&**db, 3).await;
    let next = add_job(&**db).await;
    assert_eq!(claim(&**db).await.unwrap().job.id, next.id);
    assert_eq!(status(&**db, exhausted.id).await, Status::Failed);
}

async fn new_checkpoint_resets_the_counts(db: &Database) {
    let job = add_job(&**db).await;
    for step in 0..5 {
        expire_attempts(&**db, 1).await;
        let claim = claim_after_backoff(&**db).await.unwrap();
        db.record_failed_attempt(&claim.lease, AttemptFault::Internal, &job_error(), MAX_ATTEMPTS).await.unwrap();
        let claim = claim_after_backoff(&**db).await.unwrap();
        db.record_checkpoint(&claim.lease, step).await.unwrap();
        db.requeue(&claim.lease).await.unwrap();
    }
    assert_eq!(super::helpers::job(&**db, job.id).await.attempt, 15);
    expire_attempts(&**db, 3).await;
    assert!(claim(&**db).await.is_none());
    assert_eq!(status(&**db, job.id).await, Status::Failed);
}

async fn checkpoint_of_an_earlier_attempt_does_not_reset_the_counts(db: &Database) {
    let job = add_job(&**db).await;
    for _ in 0..3 {
        let claim = claim_after_backoff(&**db).await.unwrap();
        db.record_checkpoint(&claim.lease, 0).await.unwrap();
        expire_leases(&**db).await;
    }
    assert!(claim(&**db).await.is_none());
    let failed = super::helpers::job(&**db, job.id).await;
    assert_eq!((failed.status, failed.attempt), (Status::Failed, 3));
}

async fn requeued_attempt_is_not_counted(db: &Database) {
    let job = add_job(&**db).await;
    for _ in 0..10 {
        db.requeue(&claim(&**db).await.unwrap().lease).await.unwrap();
    }
    let requeued = super::helpers::job(&**db, job.id).await;
    assert_eq!((requeued.status, requeued.attempt), (Status::Queued, 10));
    expire_attempts(&**db, 3).await;
    assert!(claim(&**db).await.is_none());
}

/// A database that was away for longer than the lease.
async fn lost_lease_of_the_same_process_is_not_counted(db: &Database) {
    let (job, worker) = (add_job(&**db).await, worker());
    for attempt in 1..=10 {
        assert_eq!(claim_as(&**db, &worker).await.expect("the job is claimed at once").job.attempt, attempt);
        expire_leases(&**db).await;
    }
    assert_eq!(status(&**db, job.id).await, Status::Running);
}

async fn reported_lost_lease_is_not_counted(db: &Database) {
    let job = add_job(&**db).await;
    for _ in 0..5 {
        let claimed = claim(&**db).await.expect("the job is claimed at once");
        expire_leases(&**db).await;
        db.report_lost_lease(&claimed.lease).await.unwrap();
    }
    // Reported after another process has claimed the job.
    for _ in 0..5 {
        let lost = claim(&**db).await.expect("the job is claimed at once");
        expire_leases(&**db).await;
        let claimed = claim(&**db).await.expect("the job is claimed at once");
        db.report_lost_lease(&lost.lease).await.unwrap();
        db.requeue(&claimed.lease).await.unwrap();
    }
    assert_eq!(status(&**db, job.id).await, Status::Queued);
}

async fn paused_attempt_is_not_counted(db: &Database) {
    let job = add_job(&**db).await;
    for _ in 0..10 {
        let claim = claim(&**db).await.unwrap();
        db.pause_job(OWNER, job.id).await.unwrap();
        db.complete_requested_action(&claim.lease, RequestedAction::Pause).await.unwrap();
        db.resume_job(OWNER, job.id).await.unwrap();
    }
    assert_eq!(status(&**db, job.id).await, Status::Queued);
    assert!(claim(&**db).await.is_some());
}

async fn internal_error_is_counted_and_kept_until_the_next_attempt(db: &Database) {
    let job = add_job(&**db).await;
    let error = JobError { code: "internal".to_string(), detail: "an internal error".to_string() };
    for attempt in 1..=3 {
        let claimed = claim_after_backoff(&**db).await.unwrap();
        assert_eq!(claimed.job.error, None);
        db.record_failed_attempt(&claimed.lease, AttemptFault::Internal, &error, MAX_ATTEMPTS).await.unwrap();
        if attempt < 3 {
            let queued = super::helpers::job(&**db, job.id).await;
            assert_eq!((queued.status, queued.error), (Status::Queued, Some(error.clone())));
            assert!(claim(&**db).await.is_none(), "the next attempt waits");
        }
    }
    let failed = super::helpers::job(&**db, job.id).await;
    let failure = failed.error.unwrap();
    assert_eq!((failed.status, failure.code.as_str()), (Status::Failed, "attempts_exhausted"));
    assert!(failure.detail.contains("an internal error"), "{}", failure.detail);
}

async fn fault_of_the_environment_is_not_counted(db: &Database) {
    let job = add_job(&**db).await;
    for _ in 0..10 {
        let claimed = claim_after_backoff(&**db).await.unwrap();
        let fault = AttemptFault::Environment;
        db.record_failed_attempt(&claimed.lease, fault, &job_error(), MAX_ATTEMPTS).await.unwrap();
        assert!(claim(&**db).await.is_none(), "the next attempt waits");
    }
    assert_eq!(super::helpers::job(&**db, job.id).await.error, Some(job_error()));
    assert!(claim_after_backoff(&**db).await.is_some());
}

async fn failed_job_is_retried_from_its_checkpoint(db: &Database) {
    let claimed = add_and_claim_job(&**db).await;
    db.record_checkpoint(&claimed.lease, 7).await.unwrap();
    db.fail_job(&claimed.lease, &job_error()).await.unwrap();
    assert_eq!(db.resumable_jobs(KEEP_CHECKPOINTS).await.unwrap(), [claimed.job.id], "its checkpoints are kept");
    let retried = db.retry_job(OWNER, claimed.job.id, MAX_QUEUED).await.unwrap();
    assert_eq!((retried.status, retried.error, retried.finished_at), (Status::Queued, None, None));
    assert_eq!(claim(&**db).await.unwrap().job.id, claimed.job.id);
    assert_eq!(status_history(&**db, claimed.job.id).await, ["queued", "running", "failed", "queued", "running"]);
}

async fn job_that_cannot_be_retried_is_rejected(db: &Database) {
    let claimed = add_and_claim_job(&**db).await;
    let id = claimed.job.id;
    expect_error(db.retry_job(OWNER, id, MAX_QUEUED).await, "job_not_failed");
    db.fail_job(&claimed.lease, &job_error()).await.unwrap();
    expect_error(db.retry_job(OTHER_OWNER, id, MAX_QUEUED).await, "job_not_found");
    let full = db.retry_job(OWNER, id, 0).await.unwrap_err();
    assert!(matches!(full, Error::Busy { problem, .. } if problem.code == "queue_full"));
    db.delete_dataset(OWNER, claimed.job.dataset_id).await.unwrap();
    expect_error(db.retry_job(OWNER, id, MAX_QUEUED).await, "dataset_gone");
    db.advance_clock(KEEP_CHECKPOINTS + BACKOFF).await.unwrap();
    assert!(db.resumable_jobs(KEEP_CHECKPOINTS).await.unwrap().is_empty());
}
