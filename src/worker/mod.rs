//! Workers: claim queued jobs, train them under a lease, and publish their adapters.
//!
//! A [`slot`] claims a job and makes an [`attempt`] at it: it reads the [`inputs`], trains on a [`background`] thread that
//! reports through a [`progress_channel`], and writes the adapter ([`publish`]). Heartbeats keep the lease meanwhile
//! ([`lease_guard`]). A worker may be killed at any moment: files are named by their content or verified when they are read,
//! blobs are written before the row that refers to them, and every row is written under the lease.

use crate::store::Store;
use crate::store::blobs::BlobStore;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::{dataset, training};
pub use idle_timer::IdleTimer;
pub use metrics::Metrics;
use slot::Slot;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod attempt;
mod background;
mod checkpoint_upload;
mod idle_timer;
mod inputs;
mod lease_guard;
mod metrics;
mod preemption;
mod progress_channel;
mod publish;
mod slot;
mod stop_signal;
pub mod webhooks;

/// Running worker slots.
pub struct Workers {
    shutdown: CancellationToken,
    slots: JoinSet<()>,
    idle: IdleTimer,
}

impl Workers {
    /// Starts the slots on the current tokio runtime.
    pub fn start(context: WorkerContext) -> Self {
        let (shutdown, idle) = (CancellationToken::new(), IdleTimer::start());
        let process_id = Uuid::now_v7();
        context.metrics.set_slots(context.settings.slots);
        let mut slots = JoinSet::new();
        for _ in 0..context.settings.slots {
            let slot = Slot::new(context.clone(), process_id, shutdown.clone(), idle.clone());
            slots.spawn(slot.run());
        }
        Self { shutdown, slots, idle }
    }

    /// Timer of the time in which no slot had a job.
    pub fn idle_timer(&self) -> IdleTimer {
        self.idle.clone()
    }

    /// Stops claiming, and waits until running jobs have written a checkpoint and are requeued.
    ///
    /// # Errors
    /// `Internal` if a slot panicked.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.cancel();
        let mut outcome = Ok(());
        while let Some(slot) = self.slots.join_next().await {
            outcome = outcome.and(slot.map_err(|error| Error::internal(format!("a worker's slot: {error}"))));
        }
        outcome
    }
}

/// Claims one job and runs it to its end in the current task; `None` if there is nothing to claim. The job's result is in its
/// row.
///
/// # Errors
/// Errors of the claim.
pub async fn run_next(context: &WorkerContext) -> Result<Option<Uuid>> {
    let slot = Slot::new(context.clone(), Uuid::now_v7(), CancellationToken::new(), IdleTimer::start());
    slot.run_next().await
}

/// Settings of the workers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of jobs that are trained at once.
    pub slots: usize,
    pub lease_duration: Duration,
    pub heartbeat_interval: Duration,
    /// How often an idle worker polls for jobs of which it got no notice, and a busy one for jobs of other owners.
    pub poll_interval: Duration,
    /// Time without a job after which the process exits.
    pub exit_when_idle: Option<Duration>,
    pub max_attempts: u32,
    /// Difference in the use of slots at which a job is preempted for the job of another owner.
    pub time_slice: Duration,
    /// Running jobs of an owner that has no limit of its own.
    pub max_running_per_owner: Option<u64>,
    pub training: training::Settings,
    pub data: dataset::Limits,
}

/// Shared services and settings of the workers.
#[derive(Clone)]
pub struct WorkerContext {
    pub base: Arc<BaseModel>,
    pub store: Arc<dyn Store>,
    pub blobs: Arc<BlobStore>,
    pub settings: Settings,
    pub metrics: Metrics,
}
