//! Leases: how they are extended, run out and are taken back, and that nobody writes under a lost one.

use super::scene::*;
use crate::support::database::Database;
use crate::support::values::*;
use espalier::store::{Status, Wish};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    a_heartbeat_stores_the_progress,
    a_heartbeat_extends_the_lease,
    a_progress_that_json_cannot_hold_leaves_the_one_before,
    a_job_under_a_lease_is_left_alone,
    a_job_whose_lease_ran_out_is_claimed_again,
    a_late_worker_writes_nothing,
    nothing_is_written_to_a_job_that_is_over,
    a_restarted_server_takes_back_its_own_leases_alone,
    a_taken_back_job_runs_under_a_new_epoch,
    a_failed_job_says_why,
);

async fn a_heartbeat_stores_the_progress(db: &Database) {
    let claim = a_claim(&**db).await;
    assert_eq!(db.heartbeat(&claim.lease, LEASE, Some(&progress(120))).await.unwrap(), None);
    assert_eq!(job(&**db, claim.job.id).await.progress, Some(progress(120)));
    db.heartbeat(&claim.lease, LEASE, None).await.unwrap();
    assert_eq!(job(&**db, claim.job.id).await.progress, Some(progress(120)));
}

async fn a_heartbeat_extends_the_lease(db: &Database) {
    let lease = a_claim(&**db).await.lease;
    for _ in 0..3 {
        db.advance_clock(Duration::from_secs(20)).await.unwrap();
        assert!(claim(&**db).await.is_none());
        db.heartbeat(&lease, LEASE, None).await.unwrap();
    }
    let_leases_run_out(&**db).await;
    assert!(claim(&**db).await.is_some());
}

async fn a_progress_that_json_cannot_hold_leaves_the_one_before(db: &Database) {
    let claim = a_claim(&**db).await;
    db.heartbeat(&claim.lease, LEASE, Some(&progress(1))).await.unwrap();
    let mut diverged = progress(2);
    diverged.train_loss = f64::NAN;
    db.heartbeat(&claim.lease, LEASE, Some(&diverged)).await.unwrap();
    assert_eq!(job(&**db, claim.job.id).await.progress, Some(progress(1)));
}

async fn a_job_under_a_lease_is_left_alone(db: &Database) {
    a_claim(&**db).await;
    db.advance_clock(LEASE - Duration::from_secs(5)).await.unwrap();
    assert!(claim(&**db).await.is_none());
}

async fn a_job_whose_lease_ran_out_is_claimed_again(db: &Database) {
    let first = a_claim(&**db).await;
    a_job(&**db).await;
    let_leases_run_out(&**db).await;
    let second = claim(&**db).await.unwrap();
    assert_eq!(second.job.id, first.job.id, "it is older than the queued one");
    assert_eq!((second.lease.epoch, second.job.attempt), (first.lease.epoch + 1, 2));
    assert_eq!(second.job.started_at, first.job.started_at);
    assert_eq!(history(&**db, first.job.id).await, ["queued", "running", "running"]);
}

async fn a_late_worker_writes_nothing(db: &Database) {
    let late = a_claim(&**db).await.lease;
    let_leases_run_out(&**db).await;
    let now = claim(&**db).await.unwrap();
    db.heartbeat(&now.lease, LEASE, Some(&progress(7))).await.unwrap();
    let before = (job(&**db, late.job).await, db.events(late.job, 0, 100).await.unwrap());

    refused(db.heartbeat(&late, LEASE, Some(&progress(1))).await, "lease_lost");
    refused(db.record_rows(&late, &[row(1, "train")]).await, "lease_lost");
    refused(db.record_rows(&late, &[]).await, "lease_lost");
    refused(db.checkpointed(&late, 5).await, "lease_lost");
    refused(db.release(&late).await, "lease_lost");
    refused(db.stopped(&late, Wish::Cancel).await, "lease_lost");
    refused(db.fail(&late, &job_error()).await, "lease_lost");
    refused(db.publish(&late, new_adapter(Some("intents"), "ad"), &json!({})).await, "lease_lost");

    assert_eq!((job(&**db, late.job).await, db.events(late.job, 0, 100).await.unwrap()), before);
    assert!(db.adapters(OWNER, ALL).await.unwrap().is_empty());
    db.publish(&now.lease, new_adapter(Some("intents"), "ad"), &json!({})).await.unwrap();
}

async fn nothing_is_written_to_a_job_that_is_over(db: &Database) {
    let lease = a_claim(&**db).await.lease;
    db.fail(&lease, &job_error()).await.unwrap();
    refused(db.heartbeat(&lease, LEASE, None).await, "lease_lost");
    refused(db.fail(&lease, &job_error()).await, "lease_lost");
    refused(db.publish(&lease, new_adapter(None, "ad"), &json!({})).await, "lease_lost");
    assert_eq!(history(&**db, lease.job).await, ["queued", "running", "failed"]);
}

async fn a_restarted_server_takes_back_its_own_leases_alone(db: &Database) {
    let (mine, other) = (worker(), worker());
    a_job(&**db).await;
    a_job(&**db).await;
    let first = claim_as(&**db, &mine).await.unwrap();
    claim_as(&**db, &other).await.unwrap();
    assert_eq!(db.take_back(Uuid::now_v7()).await.unwrap(), 0);
    assert_eq!(db.take_back(mine.instance).await.unwrap(), 1);
    assert_eq!(claim(&**db).await.unwrap().job.id, first.job.id);
    assert!(claim(&**db).await.is_none());
}

async fn a_taken_back_job_runs_under_a_new_epoch(db: &Database) {
    let mine = worker();
    a_job(&**db).await;
    let dead = claim_as(&**db, &mine).await.unwrap();
    db.take_back(mine.instance).await.unwrap();
    let again = claim_as(&**db, &mine).await.unwrap();
    assert!(again.lease.epoch > dead.lease.epoch);
    refused(db.heartbeat(&dead.lease, LEASE, None).await, "lease_lost");
    assert_eq!(db.take_back(mine.instance).await.unwrap(), 1);
}

async fn a_failed_job_says_why(db: &Database) {
    let claim = a_claim(&**db).await;
    let mut error = job_error();
    db.heartbeat(&claim.lease, LEASE, Some(&progress(3))).await.unwrap();
    db.fail(&claim.lease, &error).await.unwrap();
    let failed = job(&**db, claim.job.id).await;
    assert_eq!((failed.status, failed.error.as_ref()), (Status::Failed, Some(&error)));
    assert_eq!(failed.progress, Some(progress(3)));
    assert!(failed.finished_at >= failed.started_at);
    let events = db.events(failed.id, 0, 100).await.unwrap();
    assert_eq!(events.last().unwrap().data, json!({"status": "failed", "attempt": 1, "error": error}));

    error.detail = "line \0 one".to_string();
    let claim = a_claim(&**db).await;
    db.fail(&claim.lease, &error).await.unwrap();
    let told = job(&**db, claim.job.id).await.error.unwrap();
    assert_eq!(told.detail, "line \u{fffd} one");
}
