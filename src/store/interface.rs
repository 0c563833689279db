//! [`Store`], the interface of the database. All its times come from the database's clock.

use super::model::*;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use espalier_core::training::{MetricsRow, Progress};
use std::time::Duration;
use uuid::Uuid;

/// Database of jobs, adapters and datasets. `tests/service/store` is its conformance suite.
///
/// A row of another owner is `NotFound`. A write under a lease names the lease epoch. If the epoch is not the row's
/// current one, the write is a `Conflict` (`lease_lost`) and changes nothing.
#[async_trait]
pub trait Store: Send + Sync {
    /// `"sqlite"` or `"postgres"`.
    fn backend_name(&self) -> &'static str;

    /// Commits a write that changes nothing, which fails on a full disk and on a read-only database.
    async fn check_write(&self) -> Result<()>;

    /// Time of the database's clock plus the offset that tests have set.
    async fn now(&self) -> Result<DateTime<Utc>>;

    /// Adds `offset` to the clock of every process on this database. Tests use it to expire leases.
    #[doc(hidden)]
    async fn advance_clock(&self, offset: Duration) -> Result<()>;

    // datasets

    /// Adds a dataset. If the owner already has one with the same hash and options, that one is returned.
    async fn add_dataset(&self, dataset: NewDataset) -> Result<Dataset>;
    async fn dataset(&self, owner: &str, id: Uuid) -> Result<Dataset>;
    /// Lists datasets, newest first. The cursor `page.after` stays valid after its row is deleted; this holds for all
    /// lists.
    ///
    /// # Errors
    /// `Invalid` (`unknown_after`) if the owner never had a row with the id `page.after`.
    async fn datasets(&self, owner: &str, page: PageRequest) -> Result<Vec<Dataset>>;
    /// Deletes a dataset. Returns its hash if no other dataset refers to the blob.
    ///
    /// # Errors
    /// `Conflict` (`dataset_in_use`) while an unfinished job uses it.
    async fn delete_dataset(&self, owner: &str, id: Uuid) -> Result<Option<String>>;

    // jobs

    /// Adds a job to the queue.
    ///
    /// # Errors
    /// `Conflict` (`dataset_gone`, `adapter_gone`) if a dataset or the adapter that it starts from has been deleted;
    /// `Busy` (`queue_full`) if the owner already has `max_queued` queued jobs.
    async fn add_job(&self, job: NewJob, max_queued: u64) -> Result<Job>;
    async fn job(&self, owner: &str, id: Uuid) -> Result<Job>;
    /// Lists jobs, newest first.
    async fn jobs(&self, owner: &str, status: Option<Status>, page: PageRequest) -> Result<Vec<Job>>;
    /// Number of queued jobs ahead of this one; 0 for a job that is not queued.
    async fn queue_position(&self, id: Uuid) -> Result<u64>;
    /// Number of jobs of all owners in each status, for every status in the order of [`Status::ALL`].
    async fn count_jobs_by_status(&self) -> Result<Vec<(Status, u64)>>;
    /// Cancels a queued or paused job at once; requests the cancellation of a running one.
    ///
    /// # Errors
    /// `Conflict` (`job_over`) if the job is finished.
    async fn cancel_job(&self, owner: &str, id: Uuid) -> Result<Job>;
    /// Pauses a queued job at once; requests the pause of a running one.
    ///
    /// # Errors
    /// `Conflict` (`job_not_active`) if the job is neither queued nor running, or its cancellation is requested.
    async fn pause_job(&self, owner: &str, id: Uuid) -> Result<Job>;
    /// Queues a paused job again; withdraws the requested pause of a running one.
    ///
    /// # Errors
    /// `Conflict` (`job_not_paused`) in every other state.
    async fn resume_job(&self, owner: &str, id: Uuid) -> Result<Job>;

    // workers

    /// Claims the oldest job that is queued, or running under an expired lease. The claim raises the lease epoch and
    /// counts an attempt.
    ///
    /// In the same transaction, the jobs before it that cannot run change their status: a job with `max_attempts`
    /// consecutive claims without a new checkpoint fails (`attempts_exhausted`), and a job with a requested action is
    /// cancelled or paused.
    async fn claim(&self, worker: &WorkerId, lease_duration: Duration, max_attempts: u32)
    -> Result<Option<ClaimedJob>>;
    /// Extends the lease, stores the progress (unless one of its numbers is not finite), and returns the action that the
    /// owner has requested.
    async fn heartbeat(
        &self,
        lease: &Lease,
        lease_duration: Duration,
        progress: Option<&Progress>,
    ) -> Result<Option<RequestedAction>>;
    /// Adds metrics rows as events. An existing row with the same step and split is not changed.
    async fn record_metrics(&self, lease: &Lease, rows: &[MetricsRow]) -> Result<()>;
    /// Records that the checkpoint of a step is on disk. If no earlier attempt has reached this step, the count of
    /// attempts without progress returns to zero.
    async fn record_checkpoint(&self, lease: &Lease, step: u64) -> Result<()>;
    /// Returns the job to its old position in the queue (graceful shutdown), or performs the requested action. `attempt`
    /// counts the claim; the limit on attempts does not.
    async fn requeue(&self, lease: &Lease) -> Result<()>;
    /// Returns the job to the queue after an internal error or a panic, or performs the requested action. The attempt
    /// counts towards the limit. The job keeps the error until the next claim.
    async fn record_failed_attempt(&self, lease: &Lease, error: &JobError) -> Result<()>;
    /// Records that the worker has performed a requested action, as `cancelled` or `paused`. If the request has changed
    /// since, the newest one holds: a pause becomes a cancellation, or the job is queued again. The attempt does not
    /// count towards the limit.
    async fn complete_requested_action(&self, lease: &Lease, action: RequestedAction) -> Result<()>;
    async fn fail_job(&self, lease: &Lease, error: &JobError) -> Result<()>;
    /// Adds the adapter, points its name to it and finishes the job with its metrics, in one transaction. A requested
    /// action has no effect any more.
    async fn publish(&self, lease: &Lease, adapter: NewAdapter, metrics: &serde_json::Value) -> Result<Adapter>;
    /// Expires the leases of an instance whose process has ended, and returns their number.
    async fn expire_leases_of_instance(&self, instance_id: Uuid) -> Result<u64>;

    // events

    /// Events of a job with a sequence number greater than `after`, in order.
    async fn events(&self, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>>;

    // adapters

    /// Adds an imported adapter and points its name to it.
    async fn add_adapter(&self, adapter: NewAdapter) -> Result<Adapter>;
    /// Finds an adapter by its id, by its name (the newest of that name), or by name and version prefix.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` (`ambiguous_version`) if the prefix matches more than one version.
    async fn adapter(&self, owner: &str, reference: &Reference) -> Result<Adapter>;
    /// Lists adapters, newest first.
    async fn adapters(&self, owner: &str, page: PageRequest) -> Result<Vec<Adapter>>;
    /// Deletes an adapter and points its name to the newest remaining adapter of that name. Returns the version if no
    /// other adapter refers to the folder.
    ///
    /// # Errors
    /// `Conflict` (`adapter_in_use`) while an unfinished job starts from it.
    async fn delete_adapter(&self, owner: &str, id: Uuid) -> Result<Option<String>>;
    /// Versions of all adapters. The garbage collection may remove every other adapter folder.
    async fn referenced_adapter_versions(&self) -> Result<Vec<String>>;
    /// Hashes of all datasets. The garbage collection may remove every other dataset file.
    async fn referenced_dataset_hashes(&self) -> Result<Vec<String>>;
    /// Ids of all unfinished jobs. The garbage collection may remove the checkpoints of every other job.
    async fn unfinished_jobs(&self) -> Result<Vec<Uuid>>;
}
