//! Cancel, pause and resume, at every moment of a job.

use super::scene::*;
use crate::support::database::Database;
use crate::support::values::*;
use espalier::store::{Status, Wish};

on_both_databases!(
    a_queued_job_is_cancelled_at_once,
    a_paused_job_is_cancelled_at_once,
    a_running_job_is_cancelled_by_its_worker,
    a_job_that_is_over_cannot_be_cancelled,
    a_queued_job_is_paused_and_resumed_at_once,
    a_running_job_is_paused_by_its_worker,
    a_pause_can_be_taken_back_before_it_happened,
    a_resume_that_crosses_the_pause_queues_the_job,
    a_cancel_that_crosses_the_pause_wins,
    a_cancelled_job_is_neither_paused_nor_resumed,
    a_wish_comes_true_when_the_worker_died,
);

async fn a_queued_job_is_cancelled_at_once(db: &Database) {
    let job = a_job(&**db).await;
    let cancelled = db.cancel_job(OWNER, job.id).await.unwrap();
    assert_eq!((cancelled.status, cancelled.started_at), (Status::Cancelled, None));
    assert!(cancelled.finished_at.is_some());
    assert_eq!(history(&**db, job.id).await, ["queued", "cancelled"]);
    assert!(db.open_jobs().await.unwrap().is_empty());
}

async fn a_paused_job_is_cancelled_at_once(db: &Database) {
    let job = a_job(&**db).await;
    db.pause_job(OWNER, job.id).await.unwrap();
    assert_eq!(db.open_jobs().await.unwrap(), [job.id]);
    assert_eq!(db.cancel_job(OWNER, job.id).await.unwrap().status, Status::Cancelled);
}

async fn a_running_job_is_cancelled_by_its_worker(db: &Database) {
    let claim = a_claim(&**db).await;
    for _ in 0..2 {
        let asked = db.cancel_job(OWNER, claim.job.id).await.unwrap();
        assert_eq!((asked.status, asked.wish), (Status::Running, Some(Wish::Cancel)));
    }
    assert_eq!(db.heartbeat(&claim.lease, LEASE, None).await.unwrap(), Some(Wish::Cancel));
    db.stopped(&claim.lease, Wish::Cancel).await.unwrap();
    let cancelled = job(&**db, claim.job.id).await;
    assert_eq!((cancelled.status, cancelled.wish, cancelled.adapter_id), (Status::Cancelled, None, None));
    assert!(cancelled.finished_at.is_some());
    assert_eq!(history(&**db, claim.job.id).await, ["queued", "running", "cancelled"]);
}

async fn a_job_that_is_over_cannot_be_cancelled(db: &Database) {
    let job = a_job(&**db).await;
    db.cancel_job(OWNER, job.id).await.unwrap();
    refused(db.cancel_job(OWNER, job.id).await, "job_over");
    refused(db.pause_job(OWNER, job.id).await, "job_not_active");
    refused(db.resume_job(OWNER, job.id).await, "job_not_paused");
    assert_eq!(history(&**db, job.id).await, ["queued", "cancelled"]);
}

async fn a_queued_job_is_paused_and_resumed_at_once(db: &Database) {
    let first = a_job(&**db).await;
    let second = a_job(&**db).await;
    refused(db.resume_job(OWNER, first.id).await, "job_not_paused");
    assert_eq!(db.pause_job(OWNER, first.id).await.unwrap().status, Status::Paused);
    refused(db.pause_job(OWNER, first.id).await, "job_not_active");
    let resumed = db.resume_job(OWNER, first.id).await.unwrap();
    assert_eq!((resumed.status, resumed.finished_at), (Status::Queued, None));
    assert_eq!(db.queue_place(second.id).await.unwrap(), 1, "it has its old place");
    assert_eq!(history(&**db, first.id).await, ["queued", "paused", "queued"]);
}

async fn a_running_job_is_paused_by_its_worker(db: &Database) {
    let claim = a_claim(&**db).await;
    assert_eq!(db.pause_job(OWNER, claim.job.id).await.unwrap().wish, Some(Wish::Pause));
    assert_eq!(db.heartbeat(&claim.lease, LEASE, Some(&progress(9))).await.unwrap(), Some(Wish::Pause));
    db.stopped(&claim.lease, Wish::Pause).await.unwrap();
    let paused = job(&**db, claim.job.id).await;
    assert_eq!((paused.status, paused.wish, paused.finished_at), (Status::Paused, None, None));
    assert_eq!(paused.progress, Some(progress(9)));
    let_leases_run_out(&**db).await;
    assert!(super::scene::claim(&**db).await.is_none());
    db.resume_job(OWNER, paused.id).await.unwrap();
    assert_eq!(super::scene::claim(&**db).await.unwrap().job.attempt, 2);
}

async fn a_pause_can_be_taken_back_before_it_happened(db: &Database) {
    let claim = a_claim(&**db).await;
    db.pause_job(OWNER, claim.job.id).await.unwrap();
    let resumed = db.resume_job(OWNER, claim.job.id).await.unwrap();
    assert_eq!((resumed.status, resumed.wish), (Status::Running, None));
    assert_eq!(db.heartbeat(&claim.lease, LEASE, None).await.unwrap(), None);
    refused(db.resume_job(OWNER, claim.job.id).await, "job_not_paused");
}

async fn a_resume_that_crosses_the_pause_queues_the_job(db: &Database) {
    let claim = a_claim(&**db).await;
    db.pause_job(OWNER, claim.job.id).await.unwrap();
    assert_eq!(db.heartbeat(&claim.lease, LEASE, None).await.unwrap(), Some(Wish::Pause));
    db.resume_job(OWNER, claim.job.id).await.unwrap();
    db.stopped(&claim.lease, Wish::Pause).await.unwrap();
    assert_eq!(status(&**db, claim.job.id).await, Status::Queued);
}

async fn a_cancel_that_crosses_the_pause_wins(db: &Database) {
    let claim = a_claim(&**db).await;
    db.pause_job(OWNER, claim.job.id).await.unwrap();
    db.cancel_job(OWNER, claim.job.id).await.unwrap();
    db.stopped(&claim.lease, Wish::Pause).await.unwrap();
    assert_eq!(status(&**db, claim.job.id).await, Status::Cancelled);
}

async fn a_cancelled_job_is_neither_paused_nor_resumed(db: &Database) {
    let claim = a_claim(&**db).await;
    db.cancel_job(OWNER, claim.job.id).await.unwrap();
    let error = refused(db.pause_job(OWNER, claim.job.id).await, "job_not_active");
    assert!(error.to_string().contains("is being cancelled"), "{error}");
    refused(db.resume_job(OWNER, claim.job.id).await, "job_not_paused");
    assert_eq!(job(&**db, claim.job.id).await.wish, Some(Wish::Cancel));
}

async fn a_wish_comes_true_when_the_worker_died(db: &Database) {
    let cancelled = a_claim(&**db).await.job;
    let paused = a_claim(&**db).await.job;
    let next = a_job(&**db).await;
    db.cancel_job(OWNER, cancelled.id).await.unwrap();
    db.pause_job(OWNER, paused.id).await.unwrap();
    let_leases_run_out(&**db).await;
    assert_eq!(claim(&**db).await.unwrap().job.id, next.id);
    assert_eq!(status(&**db, cancelled.id).await, Status::Cancelled);
    let paused = job(&**db, paused.id).await;
    assert_eq!((paused.status, paused.wish, paused.attempt), (Status::Paused, None, 1));
    assert_eq!(history(&**db, cancelled.id).await, ["queued", "running", "cancelled"]);
}
