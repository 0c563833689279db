//! Preemption of a job for the job of an owner whose jobs used training slots less lately.

use super::WorkerContext;
use super::progress_channel::ProgressChannel;
use super::stop_signal::StopSignal;
use crate::store::Job;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A time slice is at least this many times as long as the preparation of the training, so that preemption costs at most a tenth of the
/// worker's time.
const PREPARATION_FACTOR: u32 = 10;

/// Records how long an attempt uses its slot, and ends its use of it.
pub struct Preemption<'a> {
    context: &'a WorkerContext,
    job: Uuid,
    owner: String,
    started_at: Instant,
    /// Until then the use of the slot is recorded.
    recorded_until: Mutex<Instant>,
}

impl<'a> Preemption<'a> {
    pub fn new(context: &'a WorkerContext, job: &Job, started_at: Instant) -> Self {
        Self { context, job: job.id, owner: job.owner.clone(), started_at, recorded_until: Mutex::new(started_at) }
    }

    /// Records the use of the slot at every poll, and stops the training when another owner's job is next.
    pub async fn run(&self, progress: &ProgressChannel, stop_signal: &StopSignal) -> Infallible {
        let settings = &self.context.settings;
        loop {
            sleep(settings.poll_interval).await;
            self.record_slot_time().await;
            let Some(training_started_at) = progress.training_started_at() else { continue };
            // Every attempt spends the time until the first step again.
            let preparation = training_started_at - self.started_at;
            let time_slice = settings.time_slice.max(preparation * PREPARATION_FACTOR);
            if self.is_turn_of_another_owner(time_slice).await {
                stop_signal.preempt();
            }
        }
    }

    /// Adds the time since the last call to what the owner's jobs used.
    pub async fn record_slot_time(&self) {
        let now = Instant::now();
        let since = std::mem::replace(&mut *self.recorded_until.lock().unwrap_or_else(PoisonError::into_inner), now);
        if let Err(error) = self.context.store.add_slot_time(&self.owner, now - since).await {
            tracing::warn!(%error, "the use of a training slot is not recorded");
        }
    }

    async fn is_turn_of_another_owner(&self, time_slice: Duration) -> bool {
        let limit = self.context.settings.max_running_per_owner;
        let answer = self.context.store.is_turn_of_another_owner(self.job, time_slice, limit).await;
        // The next poll asks again.
        answer.unwrap_or_else(|error| {
            tracing::warn!(%error, "the turns of the owners could not be read");
            false
        })
    }
}
