//! Cancel, pause and resume in every status of a job.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{RequestedAction, Status};

on_both_databases!(
    a_queued_job_is_cancelled_at_once,
    a_paused_job_is_cancelled_at_once,
    a_running_job_is_cancelled_by_its_worker,
    a_finished_job_cannot_be_cancelled,
    a_queued_job_is_paused_and_resumed_at_once,
    a_running_job_is_paused_by_its_worker,
    pause_request_is_withdrawn_by_resume,
    resume_concurrent_with_pause_requeues_the_job,
    cancel_concurrent_with_pause_wins,
    a_job_that_is_being_cancelled_is_neither_paused_nor_resumed,
    requested_action_is_applied_when_the_lease_expires,
);

async fn a_queued_job_is_cancelled_at_once(db: &Database) {
    let job = add_job(&**db).await;
    let cancelled = db.cancel_job(OWNER, job.id).await.unwrap();
    assert_eq!((cancelled.status, cancelled.started_at), (Status::Cancelled, None));
    assert!(cancelled.finished_at.is_some());
    assert_eq!(status_history(&**db, job.id).await, ["queued", "cancelled"]);
    assert!(db.resumable_jobs(KEEP_CHECKPOINTS).await.unwrap().is_empty());
}

async fn a_paused_job_is_cancelled_at_once(db: &Database) {
    let job = add_job(&**db).await;
    db.pause_job(OWNER, job.id).await.unwrap();
    assert_eq!(db.resumable_jobs(KEEP_CHECKPOINTS).await.unwrap(), [job.id]);
    assert_eq!(db.cancel_job(OWNER, job.id).await.unwrap().status, Status::Cancelled);
}

async fn a_running_job_is_cancelled_by_its_worker(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    for _ in 0..2 {
        let requested = db.cancel_job(OWNER, claim.job.id).await.unwrap();
        assert_eq!((requested.status, requested.requested_action), (Status::Running, Some(RequestedAction::Cancel)));
    }
    assert_eq!(db.heartbeat(&claim.lease, LEASE, None).await.unwrap(), Some(RequestedAction::Cancel));
    db.complete_requested_action(&claim.lease, RequestedAction::Cancel).await.unwrap();
    let cancelled = job(&**db, claim.job.id).await;
    assert_eq!((cancelled.status, cancelled.requested_action, cancelled.adapter_id), (Status::Cancelled, None, None));
    assert!(cancelled.finished_at.is_some());
    assert_eq!(status_history(&**db, claim.job.id).await, ["queued", "running", "cancelled"]);
}

async fn a_finished_job_cannot_be_cancelled(db: &Database) {
    let job = add_job(&**db).await;
    db.cancel_job(OWNER, job.id).await.unwrap();
    expect_error(db.cancel_job(OWNER, job.id).await, "job_over");
    expect_error(db.pause_job(OWNER, job.id).await, "job_not_active");
    expect_error(db.resume_job(OWNER, job.id).await, "job_not_paused");
    assert_eq!(status_history(&**db, job.id).await, ["queued", "cancelled"]);
}

async fn a_queued_job_is_paused_and_resumed_at_once(db: &Database) {
    let first = add_job(&**db).await;
    let second = add_job(&**db).await;
    expect_error(db.resume_job(OWNER, first.id).await, "job_not_paused");
    assert_eq!(db.pause_job(OWNER, first.id).await.unwrap().status, Status::Paused);
    expect_error(db.pause_job(OWNER, first.id).await, "job_not_active");
    let resumed = db.resume_job(OWNER, first.id).await.unwrap();
    assert_eq!((resumed.status, resumed.finished_at), (Status::Queued, None));
    assert_eq!(db.queue_position(second.id).await.unwrap(), 1, "the resumed job keeps its position");
    assert_eq!(status_history(&**db, first.id).await, ["queued", "paused", "queued"]);
}

async fn a_running_job_is_paused_by_its_worker(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    assert_eq!(db.pause_job(OWNER, claim.job.id).await.unwrap().requested_action, Some(RequestedAction::Pause));
    assert_eq!(db.heartbeat(&claim.lease, LEASE, Some(&progress(9))).await.unwrap(), Some(RequestedAction::Pause));
    db.complete_requested_action(&claim.lease, RequestedAction::Pause).await.unwrap();
    let paused = job(&**db, claim.job.id).await;
    assert_eq!((paused.status, paused.requested_action, paused.finished_at), (Status::Paused, None, None));
    assert_eq!(paused.progress, Some(progress(9)));
    expire_leases(&**db).await;
    assert!(super::helpers::claim(&**db).await.is_none());
    db.resume_job(OWNER, paused.id).await.unwrap();
    assert_eq!(super::helpers::claim(&**db).await.unwrap().job.attempt, 2);
}

async fn pause_request_is_withdrawn_by_resume(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.pause_job(OWNER, claim.job.id).await.unwrap();
    let resumed = db.resume_job(OWNER, claim.job.id).await.unwrap();
    assert_eq!((resumed.status, resumed.requested_action), (Status::Running, None));
    assert_eq!(db.heartbeat(&claim.lease, LEASE, None).await.unwrap(), None);
    expect_error(db.resume_job(OWNER, claim.job.id).await, "job_not_paused");
}

async fn resume_concurrent_with_pause_requeues_the_job(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.pause_job(OWNER, claim.job.id).await.unwrap();
    assert_eq!(db.heartbeat(&claim.lease, LEASE, None).await.unwrap(), Some(RequestedAction::Pause));
    db.resume_job(OWNER, claim.job.id).await.unwrap();
    db.complete_requested_action(&claim.lease, RequestedAction::Pause).await.unwrap();
    assert_eq!(status(&**db, claim.job.id).await, Status::Queued);
}

async fn cancel_concurrent_with_pause_wins(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.pause_job(OWNER, claim.job.id).await.unwrap();
    db.cancel_job(OWNER, claim.job.id).await.unwrap();
    db.complete_requested_action(&claim.lease, RequestedAction::Pause).await.unwrap();
    assert_eq!(status(&**db, claim.job.id).await, Status::Cancelled);
}

async fn a_job_that_is_being_cancelled_is_neither_paused_nor_resumed(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.cancel_job(OWNER, claim.job.id).await.unwrap();
    let error = expect_error(db.pause_job(OWNER, claim.job.id).await, "job_not_active");
    assert!(error.to_string().contains("is being cancelled"), "{error}");
    expect_error(db.resume_job(OWNER, claim.job.id).await, "job_not_paused");
    assert_eq!(job(&**db, claim.job.id).await.requested_action, Some(RequestedAction::Cancel));
}

async fn requested_action_is_applied_when_the_lease_expires(db: &Database) {
    let cancelled = add_and_claim_job(&**db).await.job;
    let paused = add_and_claim_job(&**db).await.job;
    let next = add_job(&**db).await;
    db.cancel_job(OWNER, cancelled.id).await.unwrap();
    db.pause_job(OWNER, paused.id).await.unwrap();
    expire_leases(&**db).await;
    assert_eq!(claim(&**db).await.unwrap().job.id, next.id);
    assert_eq!(status(&**db, cancelled.id).await, Status::Cancelled);
    let paused = job(&**db, paused.id).await;
    assert_eq!((paused.status, paused.requested_action, paused.attempt), (Status::Paused, None, 1));
    assert_eq!(status_history(&**db, cancelled.id).await, ["queued", "running", "cancelled"]);
}
