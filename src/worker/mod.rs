//! Claim, train, publish, under a lease. Knows nothing of HTTP or serving.
//!
//! A slot ([`slot`]) claims a job and makes an [`attempt`] at it: reads its [`dataset`], trains on a thread of our own
//! ([`thread`]) that speaks and hears through [`speech`] and [`orders`], and publishes ([`publish`]). Meanwhile the lease
//! is kept alive ([`hold`]). A worker may be killed at any moment: what is on disk is named by content or verified when
//! it is read, every row is written under the lease, and blobs come before the row that needs them.

mod attempt;
mod attempt_error;
mod background;
mod inputs;
mod lease_guard;
mod progress_channel;
mod publish;
mod slot;
mod stop_signal;
mod warm_start;

use crate::store::Store;
use crate::store::blobs::DataDir;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::{dataset, training};
use slot::Slot;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Jobs trained at once.
    pub slots: usize,
    pub lease_duration: Duration,
    pub heartbeat_interval: Duration,
    /// How often an idle worker looks for a job that nobody told it of.
    pub poll_interval: Duration,
    pub max_attempts: u32,
    pub training: training::Settings,
    pub data: dataset::Limits,
}

/// What a worker needs of the house.
#[derive(Clone)]
pub struct WorkerContext {
    pub base: Arc<BaseModel>,
    pub store: Arc<dyn Store>,
    pub data_folder: Arc<DataDir>,
    pub settings: Settings,
}

/// The running slots.
pub struct Workers {
    wake: Arc<Notify>,
    shutdown: CancellationToken,
    slots: JoinSet<()>,
}

impl Workers {
    /// Starts the slots on the current tokio runtime.
    pub fn start(context: WorkerContext) -> Self {
        let (wake, shutdown) = (Arc::new(Notify::new()), CancellationToken::new());
        let process_id = Uuid::now_v7();
        let mut slots = JoinSet::new();
        for _ in 0..context.settings.slots {
            let slot = Slot::new(context.clone(), process_id, shutdown.clone());
            slots.spawn(slot.run(Arc::clone(&wake)));
        }
        Self { wake, shutdown, slots }
    }

    /// Says that a job was queued, so that a free slot looks at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// What [`Self::wake`] does, for those who must not hold the workers themselves.
    pub fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wake = Arc::clone(&self.wake);
        Arc::new(move || wake.notify_one())
    }

    /// Stops claiming, lets running jobs write a checkpoint, hands their leases back.
    ///
    /// # Errors
    /// `Internal` where a slot has panicked.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.cancel();
        let mut outcome = Ok(());
        while let Some(slot) = self.slots.join_next().await {
            outcome = outcome.and(slot.map_err(|error| Error::internal(format!("a worker's slot: {error}"))));
        }
        outcome
    }
}

/// Claims one job and runs it to its end in the caller's task; `None` where there is nothing to claim.
///
/// # Errors
/// What the store says to the claim. Whatever becomes of the job is in its row.
pub async fn run_next(context: &WorkerContext) -> Result<Option<Uuid>> {
    Slot::new(context.clone(), Uuid::now_v7(), CancellationToken::new()).run_next().await
}
