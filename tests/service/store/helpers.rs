//! Steps that most rules begin with.

use crate::support::samples::*;
use espalier::store::{ClaimRules, ClaimedJob, Dataset, Job, PageRequest, RetentionPolicy, Status, Store, WorkerId};
use espalier_core::error::{Error, Result};
use std::fmt::Debug;
use std::time::Duration;
use uuid::Uuid;

pub const LEASE: Duration = Duration::from_secs(30);
pub const MAX_ATTEMPTS: u32 = 3;
pub const MAX_QUEUED: u64 = 1000;
pub const KEEP_CHECKPOINTS: Duration = Duration::from_secs(3600);
/// Policy that deletes nothing.
pub const KEEP_ALL: RetentionPolicy = RetentionPolicy {
    keep_jobs: None,
    max_finished_jobs: None,
    keep_events: None,
    keep_datasets: None,
    keep_versions: None,
    keep_superseded: None,
    keep_checkpoints: KEEP_CHECKPOINTS,
};

/// Rules of a worker that claims the jobs of [`new_job`].
pub fn claim_rules() -> ClaimRules {
    ClaimRules { platform: platform(), lease_duration: LEASE, max_attempts: MAX_ATTEMPTS, max_running_per_owner: None }
}
pub const ALL: PageRequest = PageRequest { limit: 1000, after: None };

pub async fn add_dataset(store: &dyn Store) -> Dataset {
    store.add_dataset(new_dataset("da7a")).await.expect("a dataset is added")
}

pub async fn add_job(store: &dyn Store) -> Job {
    let dataset = add_dataset(store).await;
    store.add_job(new_job(dataset.id), MAX_QUEUED).await.expect("a job is added")
}

pub async fn add_and_claim_job(store: &dyn Store) -> ClaimedJob {
    add_job(store).await;
    claim(store).await.expect("the job is claimed")
}

pub async fn claim(store: &dyn Store) -> Option<ClaimedJob> {
    claim_as(store, &worker()).await
}

pub async fn claim_as(store: &dyn Store, worker: &WorkerId) -> Option<ClaimedJob> {
    store.claim(worker, &claim_rules()).await.expect("the claim succeeds")
}

/// Moves the clock past the end of all leases.
pub async fn expire_leases(store: &dyn Store) {
    store.advance_clock(LEASE + Duration::from_secs(1)).await.expect("the clock moves");
}

pub async fn job(store: &dyn Store, id: Uuid) -> Job {
    store.job(OWNER, id).await.expect("the job exists")
}

pub async fn status(store: &dyn Store, id: Uuid) -> Status {
    job(store, id).await.status
}

/// Statuses in the job's events, in order.
pub async fn status_history(store: &dyn Store, id: Uuid) -> Vec<String> {
    let events = store.events(id, 0, 1000).await.expect("events are read");
    let status = |event: espalier::store::Event| event.data["status"].as_str().map(str::to_string);
    events.into_iter().filter_map(status).collect()
}

#[track_caller]
pub fn expect_error<T: Debug>(result: Result<T>, code: &str) -> Error {
    let error = result.expect_err("the call must fail");
    assert_eq!(error.code(), code, "{error}");
    error
}
