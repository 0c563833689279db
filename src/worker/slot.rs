//! Worker slot: claims jobs one by one, and waits while the queue is empty.

use super::WorkerContext;
use super::attempt::Attempt;
use super::idle_timer::IdleTimer;
use super::publish::AttemptOutcome;
use crate::store::{self, Change, ClaimRules, Job, Lease, Platform};
use crate::telemetry::{self, TraceContext};
use espalier_core::error::{Error, Result};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

/// Delay after a lost lease, a panic or a failed claim, so that the slot does not spin.
const ERROR_BACKOFF: Duration = Duration::from_secs(1);

/// Worker slot: claims queued jobs and runs them one after another.
pub struct Slot {
    context: WorkerContext,
    worker: store::WorkerId,
    shutdown: CancellationToken,
    idle: IdleTimer,
}

impl Slot {
    pub fn new(context: WorkerContext, process_id: Uuid, shutdown: CancellationToken, idle: IdleTimer) -> Self {
        let worker = store::WorkerId { instance_id: context.blobs.data_dir().instance_id(), process_id };
        Self { context, worker, shutdown, idle }
    }

    /// Runs jobs until shutdown. A panic ends the current attempt, not the slot.
    pub async fn run(self) {
        let mut lost_lease = None;
        while !self.shutdown.is_cancelled() {
            // From before the claim, so that no queued job is missed.
            let mut changes = self.context.store.changes();
            let outcome = AssertUnwindSafe(self.report_and_run_one(&mut lost_lease)).catch_unwind().await;
            let panicked = |payload: Box<_>| Err(Error::from_panic("a worker's slot", &*payload));
            match outcome.unwrap_or_else(panicked) {
                // The queue may have more jobs.
                Ok(Some((_, AttemptOutcome::Finished))) => {}
                Ok(Some((_, AttemptOutcome::LeaseLost(lease)))) => {
                    lost_lease = Some(lease);
                    self.wait(ERROR_BACKOFF, std::future::pending()).await;
                }
                Ok(None) => {
                    let queued = changes.changed(|change| matches!(change, Change::JobQueued(_)));
                    self.wait(self.context.settings.poll_interval, queued).await;
                }
                Err(error) => {
                    self.idle.reset();
                    tracing::warn!(%error, "claiming or running a job failed; the slot waits");
                    self.wait(ERROR_BACKOFF, std::future::pending()).await;
                }
            }
        }
    }

    /// Claims one job and runs it to its end; `None` if there is nothing to claim.
    pub async fn run_next(&self) -> Result<Option<Uuid>> {
        Ok(self.run_one().await?.map(|(job, _)| job))
    }

    /// Reports a lease that this slot has lost before it claims again.
    async fn report_and_run_one(&self, lost_lease: &mut Option<Lease>) -> Result<Option<(Uuid, AttemptOutcome)>> {
        if let Some(lease) = lost_lease {
            self.context.store.report_lost_lease(lease).await?;
            *lost_lease = None;
        }
        self.run_one().await
    }

    async fn run_one(&self) -> Result<Option<(Uuid, AttemptOutcome)>> {
        let settings = &self.context.settings;
        // The local deadline counts from before the claim is sent, so it is never later than the one in the database.
        let claim_sent_at = Instant::now();
        let base = self.context.base.info();
        let rules = ClaimRules {
            platform: Platform { base: base.fingerprint.clone(), kernels: base.backend.clone() },
            lease_duration: settings.lease_duration,
            max_attempts: settings.max_attempts,
            max_running_per_owner: settings.max_running_per_owner,
        };
        let claim = self.context.store.claim(&self.worker, &rules).await?;
        let Some(claim) = claim else { return Ok(None) };
        let (job, span) = (claim.job.id, attempt_span(&claim.job));
        let _busy = (self.idle.begin_job(), self.context.metrics.start_attempt(&claim.job));
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

/// Span of an attempt: a part of the trace of the request that queued the job.
fn attempt_span(job: &Job) -> Span {
    let span = tracing::info_span!("job", job = %job.id, attempt = job.attempt, owner = job.owner, trace_id = Empty);
    if let Some(parent) = job.trace_context.as_deref().and_then(TraceContext::from_column) {
        telemetry::continue_trace(&span, &parent);
    }
    if let Some(context) = telemetry::sampled_context(&span) {
        span.record("trace_id", context.trace_id());
    }
    span
}
