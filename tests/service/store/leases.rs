//! Leases: extending and expiring them, and writes under a lost lease.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{RequestedAction, Status};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    a_heartbeat_stores_the_progress,
    a_heartbeat_extends_the_lease,
    non_finite_progress_keeps_the_previous_one,
    leased_job_is_not_claimed,
    job_with_expired_lease_is_reclaimed,
    stale_lease_epoch_cannot_write,
    finished_job_rejects_writes,
    restart_expires_only_the_instances_own_leases,
    requeued_job_gets_a_new_lease_epoch,
    failed_job_stores_its_error,
);

async fn a_heartbeat_stores_the_progress(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    assert_eq!(db.heartbeat(&claim.lease, LEASE, Some(&progress(120))).await.unwrap(), None);
    assert_eq!(job(&**db, claim.job.id).await.progress, Some(progress(120)));
    db.heartbeat(&claim.lease, LEASE, None).await.unwrap();
    assert_eq!(job(&**db, claim.job.id).await.progress, Some(progress(120)));
}

async fn a_heartbeat_extends_the_lease(db: &Database) {
    let lease = add_and_claim_job(&**db).await.lease;
    for _ in 0..3 {
        db.advance_clock(Duration::from_secs(20)).await.unwrap();
        assert!(claim(&**db).await.is_none());
        db.heartbeat(&lease, LEASE, None).await.unwrap();
    }
    expire_leases(&**db).await;
    assert!(claim(&**db).await.is_some());
}

async fn non_finite_progress_keeps_the_previous_one(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.heartbeat(&claim.lease, LEASE, Some(&progress(1))).await.unwrap();
    let mut diverged = progress(2);
    diverged.train_loss = f64::NAN;
    db.heartbeat(&claim.lease, LEASE, Some(&diverged)).await.unwrap();
    assert_eq!(job(&**db, claim.job.id).await.progress, Some(progress(1)));
}

async fn leased_job_is_not_claimed(db: &Database) {
    add_and_claim_job(&**db).await;
    db.advance_clock(LEASE - Duration::from_secs(5)).await.unwrap();
    assert!(claim(&**db).await.is_none());
}

async fn job_with_expired_lease_is_reclaimed(db: &Database) {
    let first = add_and_claim_job(&**db).await;
    add_job(&**db).await;
    expire_leases(&**db).await;
    let second = claim(&**db).await.unwrap();
    assert_eq!(second.job.id, first.job.id, "it is older than the queued job");
    assert_eq!((second.lease.epoch, second.job.attempt), (first.lease.epoch + 1, 2));
    assert_eq!(second.job.started_at, first.job.started_at);
    assert_eq!(status_history(&**db, first.job.id).await, ["queued", "running", "running"]);
}

async fn stale_lease_epoch_cannot_write(db: &Database) {
    let stale = add_and_claim_job(&**db).await.lease;
    expire_leases(&**db).await;
    let current = claim(&**db).await.unwrap();
    db.heartbeat(&current.lease, LEASE, Some(&progress(7))).await.unwrap();
    let before = (job(&**db, stale.job_id).await, db.events(stale.job_id, 0, 100).await.unwrap());

    expect_error(db.heartbeat(&stale, LEASE, Some(&progress(1))).await, "lease_lost");
    expect_error(db.record_metrics(&stale, &[row(1, "train")]).await, "lease_lost");
    expect_error(db.record_metrics(&stale, &[]).await, "lease_lost");
    expect_error(db.record_checkpoint(&stale, 5).await, "lease_lost");
    expect_error(db.requeue(&stale).await, "lease_lost");
    expect_error(db.complete_requested_action(&stale, RequestedAction::Cancel).await, "lease_lost");
    expect_error(db.fail_job(&stale, &job_error()).await, "lease_lost");
    expect_error(db.publish(&stale, new_adapter(Some("intents"), "ad"), &json!({})).await, "lease_lost");

    assert_eq!((job(&**db, stale.job_id).await, db.events(stale.job_id, 0, 100).await.unwrap()), before);
    assert!(db.adapters(OWNER, ALL).await.unwrap().is_empty());
    db.publish(&current.lease, new_adapter(Some("intents"), "ad"), &json!({})).await.unwrap();
}

async fn finished_job_rejects_writes(db: &Database) {
    let lease = add_and_claim_job(&**db).await.lease;
    db.fail_job(&lease, &job_error()).await.unwrap();
    expect_error(db.heartbeat(&lease, LEASE, None).await, "lease_lost");
    expect_error(db.fail_job(&lease, &job_error()).await, "lease_lost");
    expect_error(db.publish(&lease, new_adapter(None, "ad"), &json!({})).await, "lease_lost");
    assert_eq!(status_history(&**db, lease.job_id).await, ["queued", "running", "failed"]);
}

async fn restart_expires_only_the_instances_own_leases(db: &Database) {
    let (mine, other) = (worker(), worker());
    add_job(&**db).await;
    add_job(&**db).await;
    let first = claim_as(&**db, &mine).await.unwrap();
    claim_as(&**db, &other).await.unwrap();
    assert_eq!(db.expire_leases_of_instance(Uuid::now_v7()).await.unwrap(), 0);
    assert_eq!(db.expire_leases_of_instance(mine.instance_id).await.unwrap(), 1);
    assert_eq!(claim(&**db).await.unwrap().job.id, first.job.id);
    assert!(claim(&**db).await.is_none());
}

async fn requeued_job_gets_a_new_lease_epoch(db: &Database) {
    let mine = worker();
    add_job(&**db).await;
    let expired = claim_as(&**db, &mine).await.unwrap();
    db.expire_leases_of_instance(mine.instance_id).await.unwrap();
    let again = claim_as(&**db, &mine).await.unwrap();
    assert!(again.lease.epoch > expired.lease.epoch);
    expect_error(db.heartbeat(&expired.lease, LEASE, None).await, "lease_lost");
    assert_eq!(db.expire_leases_of_instance(mine.instance_id).await.unwrap(), 1);
}

async fn failed_job_stores_its_error(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    let mut error = job_error();
    db.heartbeat(&claim.lease, LEASE, Some(&progress(3))).await.unwrap();
    db.fail_job(&claim.lease, &error).await.unwrap();
    let failed = job(&**db, claim.job.id).await;
    assert_eq!((failed.status, failed.error.as_ref()), (Status::Failed, Some(&error)));
    assert_eq!(failed.progress, Some(progress(3)));
    assert!(failed.finished_at >= failed.started_at);
    let events = db.events(failed.id, 0, 100).await.unwrap();
    assert_eq!(events.last().unwrap().data, json!({"status": "failed", "attempt": 1, "error": error}));

    error.detail = "line \0 one".to_string();
    let claim = add_and_claim_job(&**db).await;
    db.fail_job(&claim.lease, &error).await.unwrap();
    let stored = job(&**db, claim.job.id).await.error.unwrap();
    assert_eq!(stored.detail, "line \u{fffd} one");
}
