//! Attempts: a job that never gets anywhere ends, one that gets on does not.

use super::scene::*;
use crate::support::database::Database;
use crate::support::values::*;
use espalier::store::{JobError, Status, Store, Wish};

on_both_databases!(
    three_claims_without_a_new_checkpoint_fail_the_job,
    a_job_without_attempts_left_does_not_hold_up_the_next,
    a_new_checkpoint_starts_the_count_again,
    a_checkpoint_that_an_earlier_attempt_had_is_not_new,
    a_graceful_release_is_not_counted,
    an_attempt_that_was_given_up_counts_and_tells_why_until_the_next,
    a_pause_is_not_counted,
);

/// Claims and dies, so many times.
async fn die(store: &dyn Store, times: u32) {
    for _ in 0..times {
        claim(store).await.expect("the job is claimed");
        let_leases_run_out(store).await;
    }
}

async fn three_claims_without_a_new_checkpoint_fail_the_job(db: &Database) {
    let job = a_job(&**db).await;
    die(&**db, 3).await;
    assert!(claim(&**db).await.is_none());
    let failed = super::scene::job(&**db, job.id).await;
    assert_eq!((failed.status, failed.attempt), (Status::Failed, 3));
    let error = failed.error.unwrap();
    assert_eq!(error.code, "attempts_exhausted");
    assert!(error.detail.starts_with("3 attempts in a row"), "{}", error.detail);
    assert!(failed.finished_at.is_some());
    assert_eq!(history(&**db, job.id).await, ["queued", "running", "running", "running", "failed"]);
}

async fn a_job_without_attempts_left_does_not_hold_up_the_next(db: &Database) {
    let hopeless = a_job(&**db).await;
    die(&**db, 3).await;
    let next = a_job(&**db).await;
    assert_eq!(claim(&**db).await.unwrap().job.id, next.id);
    assert_eq!(status(&**db, hopeless.id).await, Status::Failed);
}

async fn a_new_checkpoint_starts_the_count_again(db: &Database) {
    let job = a_job(&**db).await;
    for step in 0..5 {
        die(&**db, 2).await;
        let claim = claim(&**db).await.unwrap();
        db.checkpointed(&claim.lease, step).await.unwrap();
        let_leases_run_out(&**db).await;
    }
    assert_eq!(super::scene::job(&**db, job.id).await.attempt, 15);
    die(&**db, 3).await;
    assert!(claim(&**db).await.is_none());
    assert_eq!(status(&**db, job.id).await, Status::Failed);
}

async fn a_checkpoint_that_an_earlier_attempt_had_is_not_new(db: &Database) {
    let job = a_job(&**db).await;
    for _ in 0..4 {
        let claim = claim(&**db).await.unwrap();
        db.checkpointed(&claim.lease, 0).await.unwrap();
        let_leases_run_out(&**db).await;
    }
    assert!(claim(&**db).await.is_none());
    let failed = super::scene::job(&**db, job.id).await;
    assert_eq!((failed.status, failed.attempt), (Status::Failed, 4), "the first of them did save one");
}

async fn a_graceful_release_is_not_counted(db: &Database) {
    let job = a_job(&**db).await;
    for _ in 0..10 {
        db.release(&claim(&**db).await.unwrap().lease).await.unwrap();
    }
    let released = super::scene::job(&**db, job.id).await;
    assert_eq!((released.status, released.attempt), (Status::Queued, 10));
    die(&**db, 3).await;
    assert!(claim(&**db).await.is_none());
}

async fn a_pause_is_not_counted(db: &Database) {
    let job = a_job(&**db).await;
    for _ in 0..10 {
        let claim = claim(&**db).await.unwrap();
        db.pause_job(OWNER, job.id).await.unwrap();
        db.stopped(&claim.lease, Wish::Pause).await.unwrap();
        db.resume_job(OWNER, job.id).await.unwrap();
    }
    assert_eq!(status(&**db, job.id).await, Status::Queued);
    assert!(claim(&**db).await.is_some());
}

async fn an_attempt_that_was_given_up_counts_and_tells_why_until_the_next(db: &Database) {
    let job = a_job(&**db).await;
    let error = JobError { code: "internal".to_string(), detail: "the disk is full".to_string() };
    for _ in 0..3 {
        let claimed = claim(&**db).await.unwrap();
        assert_eq!(claimed.job.error, None);
        db.give_up(&claimed.lease, &error).await.unwrap();
        let given_up = super::scene::job(&**db, job.id).await;
        assert_eq!((given_up.status, given_up.error), (Status::Queued, Some(error.clone())));
    }
    assert!(claim(&**db).await.is_none());
    let over = super::scene::job(&**db, job.id).await;
    assert_eq!((over.status, over.error.unwrap().code.as_str()), (Status::Failed, "attempts_exhausted"));
}
