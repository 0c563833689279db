//! Claims: the order of the queue, and one worker at a time for each job.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{RequestedAction, Status, Store};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

on_both_databases!(
    empty_queue_yields_no_claim,
    claim_contains_job_dataset_and_lease,
    the_oldest_job_is_claimed_first,
    queue_position_counts_the_jobs_ahead,
    paused_and_finished_jobs_are_not_claimed,
    two_processes_claim_two_hundred_jobs_each_once,
    requeued_job_keeps_its_queue_position,
    requeued_job_applies_its_requested_action,
);

async fn empty_queue_yields_no_claim(db: &Database) {
    assert!(claim(&**db).await.is_none());
}

async fn claim_contains_job_dataset_and_lease(db: &Database) {
    let validation = db.add_dataset(new_dataset("b2")).await.unwrap();
    let mut new = new_job(add_dataset(&**db).await.id);
    new.validation_dataset_id = Some(validation.id);
    let job = db.add_job(new, MAX_QUEUED).await.unwrap();
    let claim = claim(&**db).await.unwrap();
    assert_eq!((claim.lease.job_id, claim.lease.epoch), (job.id, 1));
    assert_eq!((claim.job.status, claim.job.attempt), (Status::Running, 1));
    assert_eq!(claim.job, db.job(OWNER, job.id).await.unwrap());
    assert!(claim.job.started_at.is_some_and(|started| started >= job.created_at));
    assert_eq!(claim.dataset.id, job.dataset_id);
    assert_eq!(claim.validation_dataset, Some(validation));
}

async fn the_oldest_job_is_claimed_first(db: &Database) {
    let mut added = Vec::new();
    for _ in 0..5 {
        added.push(add_job(&**db).await.id);
    }
    let mut claimed = Vec::new();
    while let Some(claim) = claim(&**db).await {
        claimed.push(claim.job.id);
    }
    assert_eq!(claimed, added);
}

async fn queue_position_counts_the_jobs_ahead(db: &Database) {
    let (first, second, third) = (add_job(&**db).await.id, add_job(&**db).await.id, add_job(&**db).await.id);
    assert_eq!((db.queue_position(first).await.unwrap(), db.queue_position(third).await.unwrap()), (0, 2));
    db.cancel_job(OWNER, second).await.unwrap();
    assert_eq!(db.queue_position(third).await.unwrap(), 1);
    claim(&**db).await.unwrap();
    assert_eq!(db.queue_position(third).await.unwrap(), 0);
    assert_eq!(db.queue_position(first).await.unwrap(), 0);
}

async fn paused_and_finished_jobs_are_not_claimed(db: &Database) {
    let paused = add_job(&**db).await;
    db.pause_job(OWNER, paused.id).await.unwrap();
    let cancelled = add_job(&**db).await;
    db.cancel_job(OWNER, cancelled.id).await.unwrap();
    let failed = add_and_claim_job(&**db).await;
    db.fail_job(&failed.lease, &job_error()).await.unwrap();
    expire_leases(&**db).await;
    assert!(claim(&**db).await.is_none());
}

async fn two_processes_claim_two_hundred_jobs_each_once(db: &Database) {
    let dataset = add_dataset(&**db).await;
    let mut added = HashSet::new();
    for _ in 0..200 {
        added.insert(db.add_job(new_job(dataset.id), MAX_QUEUED).await.unwrap().id);
    }
    let mut working = Vec::new();
    for store in [db.store(), db.reconnect().await] {
        working.extend((0..4).map(|_| tokio::spawn(claim_until_empty(store.clone()))));
    }
    let mut done = Vec::new();
    for worker in working {
        done.extend(worker.await.unwrap());
    }
    assert_eq!(done.len(), 200);
    assert_eq!(done.into_iter().collect::<HashSet<_>>(), added);
    for job in db.jobs(OWNER, Some(Status::Succeeded), ALL).await.unwrap() {
        assert_eq!(job.attempt, 1);
        added.remove(&job.id);
    }
    assert!(added.is_empty(), "every job has succeeded");
}

/// Claims and publishes jobs until the queue is empty. Returns their ids.
async fn claim_until_empty(store: Arc<dyn Store>) -> Vec<Uuid> {
    let worker = worker();
    let mut done = Vec::new();
    while let Some(claim) = claim_as(&*store, &worker).await {
        let mut adapter = new_adapter(Some("intents"), "ad");
        adapter.job_id = Some(claim.job.id);
        store.publish(&claim.lease, adapter, &serde_json::json!({})).await.expect("the lease is valid");
        done.push(claim.job.id);
    }
    done
}

async fn requeued_job_keeps_its_queue_position(db: &Database) {
    let first = add_and_claim_job(&**db).await;
    let second = add_job(&**db).await;
    db.requeue(&first.lease).await.unwrap();
    assert_eq!(status(&**db, first.job.id).await, Status::Queued);
    assert_eq!(db.queue_position(second.id).await.unwrap(), 1);
    let again = claim(&**db).await.unwrap();
    assert_eq!((again.job.id, again.job.attempt), (first.job.id, 2));
    assert_eq!(again.job.started_at, first.job.started_at);
    assert!(again.lease.epoch > first.lease.epoch);
    expect_error(db.requeue(&first.lease).await, "lease_lost");
}

async fn requeued_job_applies_its_requested_action(db: &Database) {
    let cancelled = add_and_claim_job(&**db).await;
    db.cancel_job(OWNER, cancelled.job.id).await.unwrap();
    db.requeue(&cancelled.lease).await.unwrap();
    assert_eq!(status(&**db, cancelled.job.id).await, Status::Cancelled);
    let paused = add_and_claim_job(&**db).await;
    assert_eq!(db.pause_job(OWNER, paused.job.id).await.unwrap().requested_action, Some(RequestedAction::Pause));
    db.requeue(&paused.lease).await.unwrap();
    let paused = job(&**db, paused.job.id).await;
    assert_eq!((paused.status, paused.requested_action), (Status::Paused, None));
}
