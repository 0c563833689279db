//! [`Store`], the interface of the database. All its times come from the database's clock.

mod access;
mod blobs;
mod idempotency;
mod webhooks;

pub use access::AccessStore;
pub use blobs::BlobReservations;
pub use idempotency::IdempotencyStore;
pub use webhooks::WebhookStore;

use super::changes::ChangeReceiver;
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
pub trait Store: AccessStore + BlobReservations + IdempotencyStore + WebhookStore {
    /// `"sqlite"` or `"postgres"`.
    fn backend_name(&self) -> &'static str;

    /// Changes of jobs and adapters from now on.
    fn changes(&self) -> ChangeReceiver;

    /// Connections of this process.
    fn connections(&self) -> Connections;

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
    /// Lists datasets, newest first. The cursor `page.after` stays valid for 30 days after its row is deleted; this holds for
    /// all lists.
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
    /// Running jobs of all owners, newest first.
    async fn running_jobs(&self, limit: u32) -> Result<Vec<Job>>;
    /// Number of queued jobs that are claimed before this one, if no other job is added and all jobs take equally long; 0 for a job
    /// that is not queued.
    async fn queue_position(&self, id: Uuid) -> Result<u64>;
    /// Number of jobs of all owners in each status, for every status in the order of [`Status::ALL`].
    async fn count_jobs_by_status(&self) -> Result<Vec<(Status, u64)>>;
    /// Base models of the owner's adapters and unfinished jobs, by fingerprint.
    async fn base_usage(&self, owner: &str) -> Result<Vec<BaseUsage>>;
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
    /// Queues a failed job again. It goes on from its last checkpoint.
    ///
    /// # Errors
    /// `Conflict` (`job_not_failed`; `dataset_gone` and `adapter_gone` as for [`Self::add_job`]); `Busy` (`queue_full`).
    async fn retry_job(&self, owner: &str, id: Uuid, max_queued: u64) -> Result<Job>;

    // workers

    /// Claims the next job. The claim raises the lease epoch and counts an attempt.
    ///
    /// Jobs under an expired lease and those that [`Self::requeue`] has returned go on first. Otherwise it is the turn of the owner with
    /// the fewest running jobs, among several such owners of the one with the least slot time lately, and then of the one whose last turn
    /// is the longest ago. The owner's job of the highest priority is claimed, and among these the oldest.
    ///
    /// In the same transaction, the jobs before it that cannot run change their status: a job whose process has ended
    /// waits (exponential backoff that starts at zero), or fails (`attempts_exhausted`) after `max_attempts` ends of a
    /// process in a row without a new checkpoint; a job with a requested action is cancelled or paused.
    async fn claim(&self, worker: &WorkerId, rules: &ClaimRules) -> Result<Option<ClaimedJob>>;
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
    /// Records that the checkpoint of a step is on disk. If no earlier attempt has reached this step, the counts of
    /// failed attempts return to zero.
    async fn record_checkpoint(&self, lease: &Lease, step: u64) -> Result<()>;
    /// Returns the job to the queue, where it goes on before others start (graceful shutdown), or performs the requested action.
    async fn requeue(&self, lease: &Lease) -> Result<()>;
    /// Adds the time that a job of the owner used a training slot. It counts half after ten minutes.
    async fn add_slot_time(&self, owner: &str, time: Duration) -> Result<()>;
    /// Whether the slot of the running job should go to the job of another owner: one with fewer running jobs, and with a slot time that is
    /// shorter by `time_slice`, has a queued job that may run, and the job is the last of its owner's running jobs (by priority, then by
    /// age). `max_running` is the limit of owners without one of their own. False for a job that is not running.
    async fn is_turn_of_another_owner(&self, job: Uuid, time_slice: Duration, max_running: Option<u64>)
    -> Result<bool>;
    /// Returns the job to the queue, where it waits for its owner's next turn, or performs the requested action.
    async fn preempt(&self, lease: &Lease) -> Result<()>;
    /// Returns the job to the queue after an attempt that ended in an error which is not the job's own, or performs the
    /// requested action. The job keeps the error until the next claim. The next attempt waits: exponentially longer after
    /// internal errors, of which `max_attempts` in a row without a new checkpoint fail the job (`attempts_exhausted`).
    async fn record_failed_attempt(
        &self,
        lease: &Lease,
        fault: AttemptFault,
        error: &JobError,
        max_attempts: u32,
    ) -> Result<()>;
    /// Reports that the process of this lease lives but has lost the lease, so that it does not count as ended.
    async fn report_lost_lease(&self, lease: &Lease) -> Result<()>;
    /// Records that the worker has performed a requested action, as `cancelled` or `paused`. If the request has changed
    /// since, the newest one holds: a pause becomes a cancellation, or the job is queued again.
    async fn complete_requested_action(&self, lease: &Lease, action: RequestedAction) -> Result<()>;
    async fn fail_job(&self, lease: &Lease, error: &JobError) -> Result<()>;
    /// Adds the adapter, points its name to it and finishes the job with its metrics, in one transaction. A requested
    /// action has no effect any more. If an earlier call has published this adapter, its row is returned.
    async fn publish(&self, lease: &Lease, adapter: NewAdapter, metrics: &serde_json::Value) -> Result<Adapter>;
    /// Expires the leases of an instance whose process has ended, and returns the number of its jobs.
    async fn expire_leases_of_instance(&self, instance_id: Uuid) -> Result<u64>;

    // events

    /// Events of a job with a sequence number greater than `after`, in order.
    async fn events(&self, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>>;

    // adapters

    /// Adds an imported adapter and points its name to it.
    async fn add_adapter(&self, adapter: NewAdapter) -> Result<Adapter>;
    /// Finds the id and version of an adapter, without its description.
    ///
    /// # Errors
    /// As [`Self::adapter`].
    async fn resolve_adapter(&self, owner: &str, reference: &Reference) -> Result<ResolvedAdapter>;
    /// Number of times that adapters have changed, as far as this process knows. What it has resolved before may have changed with it.
    fn adapter_changes(&self) -> u64;
    /// Finds an adapter by its id, by its name (the one that the name points to), or by name and version prefix.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` (`ambiguous_version`) if the prefix matches more than one version.
    async fn adapter(&self, owner: &str, reference: &Reference) -> Result<Adapter>;
    /// Newest adapter of the owner with this version, if there is one.
    async fn adapter_of_version(&self, owner: &str, version: &str) -> Result<Option<Adapter>>;
    /// Lists adapters, newest first.
    async fn adapters(&self, owner: &str, page: PageRequest) -> Result<Vec<Adapter>>;
    /// Points the name of an adapter to it.
    ///
    /// # Errors
    /// `Conflict` (`adapter_without_name`).
    async fn activate_adapter(&self, owner: &str, id: Uuid) -> Result<Adapter>;
    /// Deletes an adapter. If its name points to it, the name points to the newest remaining adapter of that name from then on.
    /// Returns the version if no other adapter refers to the folder.
    ///
    /// # Errors
    /// `Conflict` (`adapter_in_use`) while an unfinished job starts from it.
    async fn delete_adapter(&self, owner: &str, id: Uuid) -> Result<Option<String>>;
    /// Versions of all adapters. The garbage collection may remove every other adapter folder.
    async fn referenced_adapter_versions(&self) -> Result<Vec<String>>;
    /// Hashes of all datasets. The garbage collection may remove every other dataset file.
    async fn referenced_dataset_hashes(&self) -> Result<Vec<String>>;
    /// Ids of all unfinished jobs, and of those that have failed within `keep_checkpoints`. The garbage collection may remove
    /// the checkpoints of every other job.
    async fn resumable_jobs(&self, keep_checkpoints: Duration) -> Result<Vec<Uuid>>;

    // retention

    /// Deletes a finished job with its events. Its adapter and its datasets stay.
    ///
    /// # Errors
    /// `Conflict` (`job_active`) if the job is not finished.
    async fn delete_job(&self, owner: &str, id: Uuid) -> Result<()>;
    /// Deletes the rows that the policy does not keep, of all owners, in small transactions.
    async fn delete_old_rows(&self, policy: &RetentionPolicy) -> Result<DeletedRows>;
    /// Finds the rows that [`Self::delete_old_rows`] would delete now.
    async fn find_old_rows(&self, policy: &RetentionPolicy) -> Result<DeletedRows>;
    /// Size of the database on disk, without its log.
    async fn database_bytes(&self) -> Result<u64>;
    /// Returns the space of deleted rows to the file system, where the database does not do it by itself.
    async fn reclaim_space(&self) -> Result<()>;

    // deletion of an owner

    /// Refuses new rows of this owner (`Conflict`, `owner_being_deleted`) until [`Self::finish_owner_deletion`].
    async fn begin_owner_deletion(&self, owner: &str) -> Result<()>;
    /// Owners whose deletion began longer ago than `age` and is not finished.
    async fn unfinished_owner_deletions(&self, age: Duration) -> Result<Vec<String>>;
    /// Cancels the unfinished jobs of an owner that no worker runs, and requests the cancellation of those that one runs. Returns the
    /// jobs of which it has done either.
    async fn cancel_owner_jobs(&self, owner: &str) -> Result<Vec<Uuid>>;
    /// Counts and lists the rows of an owner.
    async fn find_owner_rows(&self, owner: &str) -> Result<DeletedOwnerRows>;
    /// Deletes all rows of an owner, tombstones included.
    ///
    /// # Errors
    /// `Busy` (`owner_jobs_running`) if a job is not finished.
    async fn delete_owner_rows(&self, owner: &str) -> Result<DeletedOwnerRows>;
    /// Accepts rows of this owner again.
    async fn finish_owner_deletion(&self, owner: &str) -> Result<()>;
}
