//! A slot: claims one job after another, and rests when there is none.
//!
//! Knows nothing of what is done with a job.

use super::Workshop;
use super::attempt::{Attempt, Ended};
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
const REST: Duration = Duration::from_secs(1);

pub struct Slot {
    workshop: Workshop,
    worker: store::Worker,
    shutdown: CancellationToken,
}

impl Slot {
    pub fn new(workshop: Workshop, process: Uuid, shutdown: CancellationToken) -> Self {
        let worker = store::Worker { instance: workshop.folder.instance(), process };
        Self { workshop, worker, shutdown }
    }

    /// Until shutdown. A panic ends what the slot was doing, not the slot.
    pub async fn run(self, wake: Arc<Notify>) {
        while !self.shutdown.is_cancelled() {
            let turn = AssertUnwindSafe(self.turn(&wake)).catch_unwind().await;
            let panicked = |payload: Box<_>| Err(Error::panicked("a worker's slot", &*payload));
            match turn.unwrap_or_else(panicked) {
                // There may be more: look again at once.
                Ok(Some((_, Ended::Well))) => {}
                Ok(Some((_, Ended::Broke))) => self.rest(REST, std::future::pending()).await,
                Ok(None) => self.rest(self.workshop.settings.poll, wake.notified()).await,
                Err(error) => {
                    tracing::warn!(%error, "a worker could not go on and rests");
                    self.rest(REST, std::future::pending()).await;
                }
            }
        }
    }

    /// Claims one job and runs it to its end.
    pub async fn next(&self) -> Result<Option<Uuid>> {
        Ok(self.turn(&Notify::new()).await?.map(|(job, _)| job))
    }

    async fn turn(&self, wake: &Notify) -> Result<Option<(Uuid, Ended)>> {
        let settings = &self.workshop.settings;
        // The lease is counted from before the question: never longer here than in the database.
        let asked = Instant::now();
        let claim = self.workshop.store.claim(&self.worker, settings.lease, settings.max_attempts).await?;
        let Some(claim) = claim else { return Ok(None) };
        // Several jobs may have been queued while one word was waiting: another free slot is to look too.
        wake.notify_one();
        let (job, attempt) = (claim.job.id, claim.job.attempt);
        let span = tracing::info_span!("job", %job, attempt);
        let attempt = Attempt::new(&self.workshop, claim, asked, self.shutdown.clone());
        Ok(Some((job, attempt.run().instrument(span).await)))
    }

    async fn rest(&self, limit: Duration, woken: impl Future<Output = ()>) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = woken => {}
            () = tokio::time::sleep(limit) => {}
        }
    }
}
