//! Remembering jobs, adapters and datasets in SQL.
//!
//! [`Store`] has two implementations, Postgres and SQLite, and one conformance suite (`tests/store.rs`). All times are
//! the database's clock. Knows nothing of HTTP, nor of how anything is trained or served.

pub mod blobs;
pub mod model;

mod errors;
mod job_state_machine;
mod migrations;
mod postgres;
mod row_decoding;
mod row_encoding;
mod sqlite;

pub use model::*;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use espalier_core::training::{MetricsRow, Progress};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Opens the database that the URL names, and brings its tables up to this version.
///
/// # Errors
/// `Invalid` where the URL or the database is not right, in words that never hold its password.
pub async fn connect(url: &str) -> Result<Arc<dyn Store>> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("sqlite") => Ok(Arc::new(sqlite::SqliteStore::connect(url).await?)),
        Some("postgres" | "postgresql") => Ok(Arc::new(postgres::PostgresStore::connect(url).await?)),
        _ => {
            let detail = "the database URL has to begin with sqlite:// (sqlite://path/to/file.db) or postgres:// \
                          (postgres://user:password@host:5432/database)";
            Err(Error::invalid("invalid_database_url", detail))
        }
    }
}

/// The URL of an SQLite file, whatever characters its path holds.
pub fn sqlite_url(file: &Path) -> String {
    let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite://{path}")
}

/// The blobs that rows need: to be read before a sweep of the data folder, not while it runs.
pub async fn live_blobs(store: &dyn Store) -> Result<blobs::LiveBlobs> {
    Ok(blobs::LiveBlobs {
        dataset_hashes: store.referenced_dataset_hashes().await?.into_iter().collect(),
        adapter_versions: store.referenced_adapter_versions().await?.into_iter().collect(),
        unfinished_jobs: store.unfinished_jobs().await?.into_iter().collect(),
    })
}

/// Rows that belong to somebody else are `NotFound`. Every write under a lease names its epoch and checks that one row
/// changed; otherwise it is `Conflict` with the code `lease_lost`, and nothing was written.
#[async_trait]
pub trait Store: Send + Sync {
    /// `"sqlite"` or `"postgres"`.
    fn backend_name(&self) -> &'static str;

    /// Whether the database answers.
    async fn ping(&self) -> Result<()>;

    /// The database's clock (with the offset that tests have set).
    async fn now(&self) -> Result<DateTime<Utc>>;

    /// Moves the store's clock ahead, for every process on this database: how tests let a lease run out.
    #[doc(hidden)]
    async fn advance_clock(&self, offset: Duration) -> Result<()>;

    // datasets

    /// Remembers a dataset; one that this owner already has with the same hash and options is returned instead.
    async fn add_dataset(&self, dataset: NewDataset) -> Result<Dataset>;
    async fn dataset(&self, owner: &str, id: Uuid) -> Result<Dataset>;
    /// Newest first. `Invalid` (`unknown_after`) where the page is to begin after something that never was there; a row
    /// that was deleted meanwhile still has its place. So too for the other lists.
    async fn datasets(&self, owner: &str, page: PageRequest) -> Result<Vec<Dataset>>;
    /// `Conflict` (`dataset_in_use`) while a job that is not over needs it. Answers the hash of a blob that no dataset
    /// needs any more.
    async fn delete_dataset(&self, owner: &str, id: Uuid) -> Result<Option<String>>;

    // jobs

    /// `Conflict` (`dataset_gone`, `adapter_gone`) where a dataset or an adapter it needs was deleted meanwhile; `Busy` (`queue_full`) beyond
    /// `max_queued` queued jobs of this owner.
    async fn add_job(&self, job: NewJob, max_queued: u64) -> Result<Job>;
    async fn job(&self, owner: &str, id: Uuid) -> Result<Job>;
    /// Newest first.
    async fn jobs(&self, owner: &str, status: Option<Status>, page: PageRequest) -> Result<Vec<Job>>;
    /// How many queued jobs will be claimed before this one; 0 for one that is not queued.
    async fn queue_position(&self, id: Uuid) -> Result<u64>;
    /// How many jobs of all owners have each status: all of them, in order, also those without jobs.
    async fn count_jobs_by_status(&self) -> Result<Vec<(Status, u64)>>;
    /// A queued or paused job becomes `cancelled` at once; a running one gets the requested_action. `Conflict` (`job_over`) otherwise.
    async fn cancel_job(&self, owner: &str, id: Uuid) -> Result<Job>;
    /// A queued job becomes `paused` at once, a running one gets the requested_action. `Conflict` (`job_not_active`) otherwise, and
    /// where it is being cancelled.
    async fn pause_job(&self, owner: &str, id: Uuid) -> Result<Job>;
    /// A paused job is queued again; a running one that was asked to pause goes on. `Conflict` (`job_not_paused`) otherwise.
    async fn resume_job(&self, owner: &str, id: Uuid) -> Result<Job>;

    // the worker's side

    /// Claims the oldest job that is queued, or running under a lease that has run out: one statement (`for update skip
    /// locked`; `begin immediate`) that raises the lease epoch and counts the attempt. A job whose `max_attempts`
    /// claims in a row saved no new checkpoint is failed with `attempts_exhausted` on the way, and the next is tried; one with an
    /// outstanding requested_action (cancel, pause) whose lease has run out gets what was wished.
    async fn claim(&self, worker: &WorkerId, lease_duration: Duration, max_attempts: u32) -> Result<Option<Claim>>;
    /// Extends the lease, stores the progress (unless a number in it is not finite), and answers what the user wishes
    /// meanwhile.
    async fn heartbeat(
        &self,
        lease: &Lease,
        lease_duration: Duration,
        progress: Option<&Progress>,
    ) -> Result<Option<RequestedAction>>;
    /// Writes metrics rows as events; a row that is there already (same job, step and split) is left as it is.
    async fn record_metrics(&self, lease: &Lease, rows: &[MetricsRow]) -> Result<()>;
    /// A checkpoint is safely on disk: attempts are counted from here again, if no attempt had come as far as this step.
    async fn record_checkpoint(&self, lease: &Lease, step: u64) -> Result<()>;
    /// Hands the job back to the queue (graceful shutdown); it keeps its place, and the claim is not held against it
    /// (`attempt` still counts it). A job with an outstanding requested_action gets what was wished.
    async fn requeue(&self, lease: &Lease) -> Result<()>;
    /// The attempt broke by a fault of ours (an internal error, a panic): the job goes back to the queue at once, or to
    /// where its owner wishes it, and the attempt counts, so that `max_attempts` of them in a row end it. The error is
    /// kept with the job until its next claim.
    async fn record_failed_attempt(&self, lease: &Lease, error: &JobError) -> Result<()>;
    /// The worker did as the user wished: `cancelled` or `paused`. Where the user changed their mind since the worker was
    /// told, the newest requested_action holds: a pause becomes a cancel, or the job is queued again. Not held against it either.
    async fn complete_requested_action(&self, lease: &Lease, action: RequestedAction) -> Result<()>;
    async fn fail_job(&self, lease: &Lease, error: &JobError) -> Result<()>;
    /// One transaction: inserts the adapter, moves the name, finishes the job with its metrics. A requested_action comes too late.
    async fn publish(&self, lease: &Lease, adapter: NewAdapter, metrics: &serde_json::Value) -> Result<Adapter>;
    /// A server that starts on a data folder takes back the leases of its earlier self: they run out now. Answers how many.
    async fn expire_leases_of_instance(&self, instance_id: Uuid) -> Result<u64>;

    // events

    /// Events of a job after this sequence number, in order.
    async fn events(&self, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>>;

    // adapters

    /// An imported adapter: inserts it and moves the name.
    async fn add_adapter(&self, adapter: NewAdapter) -> Result<Adapter>;
    /// By id, by name (the newest), or by `name@version` with at least 8 hexadecimal digits. `NotFound` says which of
    /// them was tried; an ambiguous prefix is `Invalid` (`ambiguous_version`).
    async fn adapter(&self, owner: &str, reference: &Reference) -> Result<Adapter>;
    /// Newest first.
    async fn adapters(&self, owner: &str, page: PageRequest) -> Result<Vec<Adapter>>;
    /// `Conflict` (`adapter_in_use`) while a job that starts from it is not over. Deletes it; its name falls back to the newest adapter left under that name. Answers the version whose folder no
    /// adapter row needs any more.
    async fn delete_adapter(&self, owner: &str, id: Uuid) -> Result<Option<String>>;
    /// Versions that rows still need: everything else under the adapters' folder may be swept.
    async fn referenced_adapter_versions(&self) -> Result<Vec<String>>;
    /// Hashes of dataset blobs that rows still need.
    async fn referenced_dataset_hashes(&self) -> Result<Vec<String>>;
    /// Jobs that are not over: checkpoint folders of all others may be swept.
    async fn unfinished_jobs(&self) -> Result<Vec<Uuid>>;
}
