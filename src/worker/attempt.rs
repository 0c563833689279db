//! One attempt at a job, from its claim to its end: read the inputs, train, write the adapter, publish it.
//!
//! A kill at any point loses at most the steps since the last checkpoint and leaves nothing half done. The comments at the steps
//! of [`Attempt::execute`] give the reason for each.

use super::lease_guard::{LEASE_EXPIRED, LeaseGuard, LeaseLost};
use super::metrics::AttemptEnd;
use super::progress_channel::ProgressChannel;
use super::publish::{AttemptError, AttemptOutcome, JobResults, retryable_job_error};
use super::stop_signal::StopSignal;
use super::{WorkerContext, background, inputs, publish};
use crate::store::{ClaimedJob, RequestedAction};
use espalier_core::artifact::{AdapterManifest, PublishedAdapter};
use espalier_core::error::{Error, Result};
use espalier_core::training::{Dirs, MetricsRow, Outcome, Progress, StopReason, TrainingData, TrainingResult};
use espalier_tensor::worker_pool;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// A time slice is at least this many times as long as the preparation of the training, so that preemption costs at most a tenth of the
/// worker's time.
const PREPARATION_SHARE: u32 = 10;

/// One attempt at a claimed job.
pub struct Attempt<'a> {
    context: &'a WorkerContext,
    claim: ClaimedJob,
    started_at: Instant,
    slot_time_recorded_at: Mutex<Instant>,
    stop_signal: Arc<StopSignal>,
    lease_guard: LeaseGuard,
    progress_channel: Arc<ProgressChannel>,
}

impl<'a> Attempt<'a> {
    /// `claim_sent_at` is a time before the claim was sent: the local deadline is then never later than the one in the database.
    pub fn new(
        context: &'a WorkerContext,
        claim: ClaimedJob,
        claim_sent_at: Instant,
        shutdown: CancellationToken,
    ) -> Self {
        let lease = context.settings.lease_duration;
        let stop_signal = Arc::new(StopSignal::new(shutdown, claim_sent_at + lease));
        let lease_guard = LeaseGuard::new(lease, Arc::clone(&stop_signal));
        let progress_channel = Arc::new(ProgressChannel::new(Arc::clone(&stop_signal)));
        Self { context, claim, started_at: claim_sent_at, slot_time_recorded_at: Mutex::new(claim_sent_at), stop_signal, lease_guard, progress_channel }
    }

    /// Runs the attempt; meanwhile it sends heartbeats, and looks for jobs of other owners. The job's result is in its row.
    pub async fn run(self) -> AttemptOutcome {
        tokio::select! {
            outcome = self.run_to_completion() => outcome,
            never = self.renew_lease_loop() => match never {},
            never = self.preemption_loop() => match never {},
        }
    }

    async fn run_to_completion(&self) -> AttemptOutcome {
        let executed = self.execute().await;
        self.record_slot_time().await;
        let end = attempt_end(&executed);
        let recorded = match executed {
            Ok(()) => Ok(()),
            Err(AttemptError::Stopped(stop_reason)) => self.record_stop(stop_reason).await,
            Err(AttemptError::Failed(error)) => {
                // Its detail, which may name labels, is in the job's row.
                tracing::info!(code = error.code, "job failed");
                // The checkpoints stay for a retry, until garbage collection removes them.
                self.write_under_lease("failing", || self.context.store.fail_job(&self.claim.lease, &error)).await
            }
            Err(AttemptError::Retryable(fault, error)) => {
                tracing::error!(%error, ?fault, "attempt ended in an error; the job is tried again");
                // The next attempt resumes from the checkpoint. If the row cannot be written either, the lease expires.
                let job_error = retryable_job_error(fault, &error);
                let max_attempts = self.context.settings.max_attempts;
                self.write_under_lease("recording a failed attempt", || {
                    self.context.store.record_failed_attempt(&self.claim.lease, fault, &job_error, max_attempts)
                })
                .await
            }
        };
        let metrics = &self.context.metrics;
        match recorded {
            Ok(()) => {
                metrics.end_attempt(end, self.started_at.elapsed());
                AttemptOutcome::Finished
            }
            Err(LeaseLost) => {
                metrics.end_attempt(AttemptEnd::LeaseLost, self.started_at.elapsed());
                AttemptOutcome::LeaseLost(self.claim.lease)
            }
        }
    }

    async fn record_stop(&self, stop_reason: StopReason) -> Result<(), LeaseLost> {
        let (store, lease) = (&self.context.store, &self.claim.lease);
        tracing::info!(?stop_reason, "attempt stopped");
        // A failed write means that the lease is lost. The next claim then carries out the owner's request.
        match stop_reason {
            StopReason::LeaseLost => Err(self.lease_guard.mark_lost("training", LEASE_EXPIRED)),
            StopReason::Requeue => self.write_under_lease("requeuing", || store.requeue(lease)).await,
            StopReason::Preempt => self.write_under_lease("preempting", || store.preempt(lease)).await,
            StopReason::Pause => {
                self.write_under_lease("pausing", || store.complete_requested_action(lease, RequestedAction::Pause))
                    .await
            }
            StopReason::Cancel => {
                // Before the row is written, so that a cancelled job has no checkpoints. A cancel cannot be withdrawn, so after
                // a kill in between the next claim cancels the job.
                self.remove_checkpoints().await;
                self.write_under_lease("cancelling", || store.complete_requested_action(lease, RequestedAction::Cancel))
                    .await
            }
        }
    }

    /// The steps of an attempt.
    async fn execute(&self) -> Result<(), AttemptError> {
        tracing::info!("attempt started");
        self.check_base()?;
        // A kill before training loses nothing: the claim expires.
        let data = self.load_data().instrument(tracing::debug_span!("read dataset")).await?;
        self.check_stop()?;
        // A kill during training loses the steps since the last checkpoint. The next attempt repeats them bit for bit.
        let (metric_rows, mut trained) = self.train(data).instrument(tracing::debug_span!("train")).await?;
        // The last heartbeat renews the lease for publishing, writes the final progress and receives a late cancel.
        self.heartbeat().await?;
        self.check_stop()?;
        // After a kill from here on, the next attempt resumes from the checkpoint of the last step and repeats the last
        // evaluation. Its adapter has the same bytes and version, so it finds the folder in place.
        let results = JobResults::take(&mut trained);
        let write_artifact = self.write_artifact(trained).instrument(tracing::debug_span!("write adapter"));
        let (manifest, published) = write_artifact.await?;
        // Rows that exist are not written again. Writing all rows here makes them complete before the final status.
        self.write_under_lease("recording metrics", || {
            self.context.store.record_metrics(&self.claim.lease, &metric_rows)
        })
        .await?;
        let publish = self.publish(&manifest, &results, published);
        publish.instrument(tracing::debug_span!("publish")).await?;
        // After the row is written: a kill in between leaves files that the sweep removes.
        self.remove_checkpoints().await;
        Ok(())
    }

    /// Checks that base and kernels are those that the job was submitted for, because both decide the adapter's bytes.
    fn check_base(&self) -> Result<()> {
        let (spec, info) = (&self.claim.job.spec, self.context.base.info());
        let mismatch = |kind: &str, expected: &str, actual: &str| {
            let detail = format!(
                "the job was submitted for the {kind} {expected}, and the server now has {actual}: submit it anew, or start \
                 the server as it was"
            );
            Err(Error::conflict("other_base", detail))
        };
        if spec.base() != info.fingerprint {
            return mismatch("base model", spec.base(), &info.fingerprint);
        }
        if spec.kernels() != info.backend {
            return mismatch("kernel set", spec.kernels(), &info.backend);
        }
        Ok(())
    }

    async fn load_data(&self) -> Result<TrainingData, AttemptError> {
        let (folder, claim) = (Arc::clone(&self.context.data_folder), self.claim.clone());
        let limits = self.context.settings.data.clone();
        let base = Arc::clone(&self.context.base);
        let load = background::run("read-dataset", move || inputs::load(&folder, &claim, &base, &limits));
        tokio::select! {
            data = load => Ok(data?),
            // Reading has no side effects, so its thread is not awaited.
            () = self.stop_signal.shutdown().cancelled() => Err(AttemptError::Stopped(StopReason::Requeue)),
        }
    }

    /// Trains on a background thread, and writes its checkpoints and metrics to the store meanwhile.
    async fn train(&self, data: TrainingData) -> Result<(Vec<MetricsRow>, TrainingResult), AttemptError> {
        let (base, spec) = (Arc::clone(&self.context.base), self.claim.job.spec.clone());
        let settings = self.context.settings.training.clone();
        let folder = &self.context.data_folder;
        let folders = Dirs {
            checkpoints: folder.job_checkpoint_dir(self.claim.job.id),
            feature_cache: folder.feature_cache_dir(),
        };
        let progress_channel = Arc::clone(&self.progress_channel);
        let metrics = self.context.metrics.clone();
        let train = move || {
            let mut report = |progress: &Progress| {
                metrics.record_progress(progress);
                progress_channel.report(progress)
            };
            spec.run(&base, &data, &folders, &settings, &mut report)
        };
        let mut training = pin!(background::run("train", train));
        let outcome = loop {
            tokio::select! {
                outcome = &mut training => break outcome,
                // If the lease is lost, the thread sees the stop signal and its end is awaited.
                () = self.progress_channel.changed() => { let _ = self.flush_updates().await; }
            }
        };
        // The training threads have ended. On a thread of normal priority, for serving may wait for the allocator's locks.
        tokio::task::spawn_blocking(worker_pool::trim_allocator);
        self.flush_updates().await?;
        match outcome? {
            Outcome::Finished(trained) => Ok((trained.metrics_rows.clone(), *trained)),
            Outcome::Stopped(stop) => Err(AttemptError::Stopped(stop)),
        }
    }

    async fn write_artifact(&self, trained: TrainingResult) -> Result<(AdapterManifest, PublishedAdapter)> {
        let (base, folder) = (Arc::clone(&self.context.base), Arc::clone(&self.context.data_folder));
        let spec = self.claim.job.spec.clone();
        let publish_artifact = move || {
            let artifact = publish::build_artifact(&base, &spec.resolved_spec(&trained), trained)?;
            let published = publish::write_artifact(&artifact, &base, &folder)?;
            Ok((artifact.manifest, published))
        };
        background::run("write-adapter", publish_artifact).await
    }

    /// Inserts the adapter's row and finishes the job, in one transaction.
    async fn publish(
        &self,
        manifest: &AdapterManifest,
        results: &JobResults,
        published: PublishedAdapter,
    ) -> Result<(), LeaseLost> {
        let (store, job) = (&self.context.store, &self.claim.job);
        let finished_at = self.write_under_lease("reading the clock", || store.now()).await?;
        let provenance = publish::provenance(self.context, job, self.progress_channel.progress().as_ref(), finished_at);
        let adapter = publish::adapter_row(job, manifest, published, provenance);
        let metrics = results.job_metrics(manifest);
        let publish_row = || store.publish(&self.claim.lease, adapter.clone(), &metrics);
        let adapter = self.write_under_lease("publishing", publish_row).await?;
        tracing::info!(adapter = %adapter.id, version = adapter.description.version, "adapter published");
        Ok(())
    }

    /// Sends heartbeats until the lease is lost.
    async fn renew_lease_loop(&self) -> Infallible {
        loop {
            sleep(self.context.settings.heartbeat_interval).await;
            if self.heartbeat().await.is_err() {
                std::future::pending::<Infallible>().await;
            }
        }
    }

    /// Records the use of the slot, and preempts the job when an owner that used slots less lately waits.
    async fn preemption_loop(&self) -> Infallible {
        let settings = &self.context.settings;
        let mut time_slice = None;
        loop {
            sleep(settings.poll_interval).await;
            self.record_slot_time().await;
            if self.is_training() {
                // Every attempt spends the time until the first step again.
                let preparation = || self.started_at.elapsed() * PREPARATION_SHARE;
                let time_slice = *time_slice.get_or_insert_with(|| settings.time_slice.max(preparation()));
                self.preempt_if_another_owner_waits(time_slice).await;
            }
        }
    }

    /// Adds the time since the last call to what the owner's jobs used.
    async fn record_slot_time(&self) {
        let now = Instant::now();
        let since = std::mem::replace(&mut *self.slot_time_recorded_at.lock().unwrap_or_else(PoisonError::into_inner), now);
        if let Err(error) = self.context.store.add_slot_time(&self.claim.job.owner, now - since).await {
            tracing::warn!(%error, "the use of a training slot is not recorded");
        }
    }

    /// Whether the training thread has taken a step and has steps left.
    fn is_training(&self) -> bool {
        self.progress_channel.progress().is_some_and(|progress| progress.step < progress.total_steps)
    }

    async fn preempt_if_another_owner_waits(&self, time_slice: Duration) {
        let limit = self.context.settings.max_running_per_owner;
        match self.context.store.is_turn_of_another_owner(self.claim.job.id, time_slice, limit).await {
            Ok(true) => self.stop_signal.preempt(),
            Ok(false) => {}
            // The next poll asks again.
            Err(error) => tracing::warn!(%error, "the turns of the owners could not be read"),
        }
    }

    /// Extends the lease, writes the progress and receives the owner's requested action.
    async fn heartbeat(&self) -> Result<(), LeaseLost> {
        let settings = &self.context.settings;
        let send_heartbeat = || async {
            let (sent_at, progress) = (Instant::now(), self.progress_channel.progress());
            let requested_action =
                self.context.store.heartbeat(&self.claim.lease, settings.lease_duration, progress.as_ref()).await?;
            Ok((sent_at, requested_action))
        };
        let (sent_at, requested_action) = self.write_under_lease("heartbeat", send_heartbeat).await?;
        self.lease_guard.extend(sent_at);
        self.stop_signal.set_requested_action(requested_action);
        Ok(())
    }

    /// Writes the updates of the training thread to the store.
    async fn flush_updates(&self) -> Result<(), LeaseLost> {
        let (store, lease, updates) = (&self.context.store, &self.claim.lease, self.progress_channel.take_updates());
        // The checkpoint first: an attempt with progress must not count towards the limit of attempts without. Metrics rows
        // are reported again after a resume.
        if let Some(step) = updates.checkpoint {
            self.write_under_lease("recording a checkpoint", || store.record_checkpoint(lease, step)).await?;
        }
        if !updates.rows.is_empty() {
            self.write_under_lease("recording metrics", || store.record_metrics(lease, &updates.rows)).await?;
        }
        Ok(())
    }

    /// Does not stop a job for preemption: nothing but training takes long.
    fn check_stop(&self) -> Result<(), AttemptError> {
        match self.stop_signal.stop_reason() {
            None | Some(StopReason::Preempt) => Ok(()),
            Some(stop) => Err(AttemptError::Stopped(stop)),
        }
    }

    async fn write_under_lease<T, F>(&self, operation: &str, write: impl Fn() -> F) -> Result<T, LeaseLost>
    where
        F: Future<Output = Result<T>>,
    {
        self.lease_guard.write(operation, write).await
    }

    async fn remove_checkpoints(&self) {
        let (folder, job) = (Arc::clone(&self.context.data_folder), self.claim.job.id);
        let removed = background::run("remove-checkpoints", move || folder.remove_checkpoints(job)).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "checkpoints not removed; the sweep removes them");
        }
    }
}

fn attempt_end(executed: &Result<(), AttemptError>) -> AttemptEnd {
    match executed {
        Ok(()) => AttemptEnd::Succeeded,
        Err(AttemptError::Stopped(StopReason::Preempt)) => AttemptEnd::Preempted,
        Err(AttemptError::Stopped(_)) => AttemptEnd::Stopped,
        Err(AttemptError::Failed(_)) => AttemptEnd::Failed,
        Err(AttemptError::Retryable(..)) => AttemptEnd::Error,
    }
}

/// Stops the training thread of a dropped attempt, and blocks its writes.
impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.stop_signal.abandon();
    }
}
