//! A slot: claims one job after another, and rests when there is none.
//!
//! Knows nothing of what is done with a job.

use super::WorkerContext;
use super::attempt::{Attempt, AttemptOutcome};
use crate::store;
use espalier_core::error::{Error, Result};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

/// After trouble (the database is away, a job met an internal error) a slot rests, so that it does not spin.
const ERROR_BACKOFF: Duration = Duration::from_secs(1);

pub struct Slot {
    context: WorkerContext,
    worker: store::WorkerId,
    shutdown: CancellationToken,
}

impl Slot {
    pub fn new(context: WorkerContext, process_id: Uuid, shutdown: CancellationToken) -> Self {
        let worker = store::WorkerId { instance_id: context.data_folder.instance_id(), process_id };
        Self { context, worker, shutdown }
    }

    /// Until shutdown. A panic ends what the slot was doing, not the slot.
    pub async fn run(self, job_queued: Arc<Notify>) {
        while !self.shutdown.is_cancelled() {
            let outcome = AssertUnwindSafe(self.run_one(&job_queued)).catch_unwind().await;
            let panicked = |payload: Box<_>| Err(Error::from_panic("a worker's slot", &*payload));
            match outcome.unwrap_or_else(panicked) {
                // There may be more: look again at once.
                Ok(Some((_, AttemptOutcome::Finished))) => {}
                Ok(Some((_, AttemptOutcome::InternalError))) => self.wait(ERROR_BACKOFF, std::future::pending()).await,
                Ok(None) => self.wait(self.context.settings.poll_interval, job_queued.notified()).await,
                Err(error) => {
                    tracing::warn!(%error, "a worker could not go on and rests");
                    self.wait(ERROR_BACKOFF, std::future::pending()).await;
                }
            }
        }
    }

    /// Claims one job and runs it to its end.
    pub async fn run_next(&self) -> Result<Option<Uuid>> {
        Ok(self.run_one(&Notify::new()).await?.map(|(job, _)| job))
    }

    async fn run_one(&self, job_queued: &Notify) -> Result<Option<(Uuid, AttemptOutcome)>> {
        let settings = &self.context.settings;
        // The lease is counted from before the question: never longer here than in the database.
        let claim_sent_at = Instant::now();
        let claim = self.context.store.claim(&self.worker, settings.lease_duration, settings.max_attempts).await?;
        let Some(claim) = claim else { return Ok(None) };
        // Several jobs may have been queued while one word was waiting: another free slot is to look too.
        job_queued.notify_one();
        let (job, attempt) = (claim.job.id, claim.job.attempt);
        let span = tracing::info_span!("job", %job, attempt);
        let attempt = Attempt::new(&self.context, claim, claim_sent_at, self.shutdown.clone());
        Ok(Some((job, attempt.run().instrument(span).await)))
    }

    async fn wait(&self, timeout: Duration, wakeup: impl Future<Output = ()>) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = wakeup => {}
            () = tokio::time::sleep(timeout) => {}
        }
    }
}
