//! Limit on attempts: a job without progress fails, a job with progress does not.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{JobError, RequestedAction, Status, Store};

on_both_databases!(
    three_claims_without_a_new_checkpoint_fail_the_job,
    exhausted_job_does_not_block_the_queue,
    new_checkpoint_resets_the_attempt_count,
    checkpoint_of_an_earlier_attempt_does_not_reset_the_count,
    requeued_attempt_is_not_counted,
    failed_attempt_is_counted_and_its_error_kept_until_the_next,
    paused_attempt_is_not_counted,
);

/// Claims the job and lets the lease expire, `times` times.
async fn expire_attempts(store: &dyn Store, times: u32) {
    for _ in 0..times {
        claim(store).await.expect("the job is claimed");
        expire_leases(store).await;
    }
}

async fn three_claims_without_a_new_checkpoint_fail_the_job(db: &Database) {
    let job = add_job(&**db).await;
    expire_attempts(&**db, 3).await;
    assert!(claim(&**db).await.is_none());
    let failed = super::helpers::job(&**db, job.id).await;
    assert_eq!((failed.status, failed.attempt), (Status::Failed, 3));
    let error = failed.error.unwrap();
    assert_eq!(error.code, "attempts_exhausted");
    assert!(error.detail.starts_with("3 attempts in a row"), "{}", error.detail);
    assert!(failed.finished_at.is_some());
    assert_eq!(status_history(&**db, job.id).await, ["queued", "running", "running", "running", "failed"]);
}

async fn exhausted_job_does_not_block_the_queue(db: &Database) {
    let exhausted = add_job(&**db).await;
    expire_attempts(&**db, 3).await;
    let next = add_job(&**db).await;
    assert_eq!(claim(&**db).await.unwrap().job.id, next.id);
    assert_eq!(status(&**db, exhausted.id).await, Status::Failed);
}

async fn new_checkpoint_resets_the_attempt_count(db: &Database) {
    let job = add_job(&**db).await;
    for step in 0..5 {
        expire_attempts(&**db, 2).await;
        let claim = claim(&**db).await.unwrap();
        db.record_checkpoint(&claim.lease, step).await.unwrap();
        expire_leases(&**db).await;
    }
    assert_eq!(super::helpers::job(&**db, job.id).await.attempt, 15);
    expire_attempts(&**db, 3).await;
    assert!(claim(&**db).await.is_none());
    assert_eq!(status(&**db, job.id).await, Status::Failed);
}

async fn checkpoint_of_an_earlier_attempt_does_not_reset_the_count(db: &Database) {
    let job = add_job(&**db).await;
    for _ in 0..4 {
        let claim = claim(&**db).await.unwrap();
        db.record_checkpoint(&claim.lease, 0).await.unwrap();
        expire_leases(&**db).await;
    }
    assert!(claim(&**db).await.is_none());
    let failed = super::helpers::job(&**db, job.id).await;
    assert_eq!((failed.status, failed.attempt), (Status::Failed, 4), "the first attempt had a new checkpoint");
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

async fn failed_attempt_is_counted_and_its_error_kept_until_the_next(db: &Database) {
    let job = add_job(&**db).await;
    let error = JobError { code: "internal".to_string(), detail: "the disk is full".to_string() };
    for _ in 0..3 {
        let claimed = claim(&**db).await.unwrap();
        assert_eq!(claimed.job.error, None);
        db.record_failed_attempt(&claimed.lease, &error).await.unwrap();
        let queued = super::helpers::job(&**db, job.id).await;
        assert_eq!((queued.status, queued.error), (Status::Queued, Some(error.clone())));
    }
    assert!(claim(&**db).await.is_none());
    let failed = super::helpers::job(&**db, job.id).await;
    assert_eq!((failed.status, failed.error.unwrap().code.as_str()), (Status::Failed, "attempts_exhausted"));
}
