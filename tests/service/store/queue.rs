//! The queue: who is next, and that each job has one worker at a time.

use super::scene::*;
use crate::support::database::Database;
use crate::support::values::*;
use espalier::store::{Status, Store, Wish};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

on_both_databases!(
    an_empty_queue_gives_nothing,
    a_claim_holds_what_a_worker_needs,
    the_oldest_job_is_claimed_first,
    a_place_in_the_queue_is_the_number_of_jobs_before,
    paused_and_finished_jobs_are_not_claimed,
    two_processes_claim_two_hundred_jobs_each_once,
    a_released_job_keeps_its_place,
    a_released_job_gets_what_is_wished_of_it,
);

async fn an_empty_queue_gives_nothing(db: &Database) {
    assert!(claim(&**db).await.is_none());
}

async fn a_claim_holds_what_a_worker_needs(db: &Database) {
    let validation = db.add_dataset(new_dataset("b2")).await.unwrap();
    let mut new = new_job(a_dataset(&**db).await.id);
    new.validation_dataset_id = Some(validation.id);
    let job = db.add_job(new, MAX_QUEUED).await.unwrap();
    let claim = claim(&**db).await.unwrap();
    assert_eq!((claim.lease.job, claim.lease.epoch), (job.id, 1));
    assert_eq!((claim.job.status, claim.job.attempt), (Status::Running, 1));
    assert_eq!(claim.job, db.job(OWNER, job.id).await.unwrap());
    assert!(claim.job.started_at.is_some_and(|started| started >= job.created_at));
    assert_eq!(claim.dataset.id, job.dataset_id);
    assert_eq!(claim.validation_dataset, Some(validation));
}

async fn the_oldest_job_is_claimed_first(db: &Database) {
    let mut added = Vec::new();
    for _ in 0..5 {
        added.push(a_job(&**db).await.id);
    }
    let mut claimed = Vec::new();
    while let Some(claim) = claim(&**db).await {
        claimed.push(claim.job.id);
    }
    assert_eq!(claimed, added);
}

async fn a_place_in_the_queue_is_the_number_of_jobs_before(db: &Database) {
    let (first, second, third) = (a_job(&**db).await.id, a_job(&**db).await.id, a_job(&**db).await.id);
    assert_eq!((db.queue_place(first).await.unwrap(), db.queue_place(third).await.unwrap()), (0, 2));
    db.cancel_job(OWNER, second).await.unwrap();
    assert_eq!(db.queue_place(third).await.unwrap(), 1);
    claim(&**db).await.unwrap();
    assert_eq!(db.queue_place(third).await.unwrap(), 0);
    assert_eq!(db.queue_place(first).await.unwrap(), 0);
}

async fn paused_and_finished_jobs_are_not_claimed(db: &Database) {
    let paused = a_job(&**db).await;
    db.pause_job(OWNER, paused.id).await.unwrap();
    let cancelled = a_job(&**db).await;
    db.cancel_job(OWNER, cancelled.id).await.unwrap();
    let failed = a_claim(&**db).await;
    db.fail(&failed.lease, &job_error()).await.unwrap();
    let_leases_run_out(&**db).await;
    assert!(claim(&**db).await.is_none());
}

async fn two_processes_claim_two_hundred_jobs_each_once(db: &Database) {
    let dataset = a_dataset(&**db).await;
    let mut added = HashSet::new();
    for _ in 0..200 {
        added.insert(db.add_job(new_job(dataset.id), MAX_QUEUED).await.unwrap().id);
    }
    let mut working = Vec::new();
    for store in [db.store(), db.connect_again().await] {
        working.extend((0..4).map(|_| tokio::spawn(work_until_empty(store.clone()))));
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

/// Claims and publishes until nothing is left; answers what it did.
async fn work_until_empty(store: Arc<dyn Store>) -> Vec<Uuid> {
    let worker = worker();
    let mut done = Vec::new();
    while let Some(claim) = claim_as(&*store, &worker).await {
        let mut adapter = new_adapter(Some("intents"), "ad");
        adapter.job_id = Some(claim.job.id);
        store.publish(&claim.lease, adapter, &serde_json::json!({})).await.expect("the lease is ours");
        done.push(claim.job.id);
    }
    done
}

async fn a_released_job_keeps_its_place(db: &Database) {
    let first = a_claim(&**db).await;
    let second = a_job(&**db).await;
    db.release(&first.lease).await.unwrap();
    assert_eq!(status(&**db, first.job.id).await, Status::Queued);
    assert_eq!(db.queue_place(second.id).await.unwrap(), 1);
    let again = claim(&**db).await.unwrap();
    assert_eq!((again.job.id, again.job.attempt), (first.job.id, 2));
    assert_eq!(again.job.started_at, first.job.started_at);
    assert!(again.lease.epoch > first.lease.epoch);
    refused(db.release(&first.lease).await, "lease_lost");
}

async fn a_released_job_gets_what_is_wished_of_it(db: &Database) {
    let cancelled = a_claim(&**db).await;
    db.cancel_job(OWNER, cancelled.job.id).await.unwrap();
    db.release(&cancelled.lease).await.unwrap();
    assert_eq!(status(&**db, cancelled.job.id).await, Status::Cancelled);
    let paused = a_claim(&**db).await;
    assert_eq!(db.pause_job(OWNER, paused.job.id).await.unwrap().wish, Some(Wish::Pause));
    db.release(&paused.lease).await.unwrap();
    let paused = job(&**db, paused.job.id).await;
    assert_eq!((paused.status, paused.wish), (Status::Paused, None));
}
