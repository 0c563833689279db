//! One attempt at a job, from its claim to its end: read the inputs, train, write the adapter, publish it.
//!
//! A kill at any point loses at most the steps since the last checkpoint and leaves nothing half done. The comments at the steps
//! of [`Attempt::execute`] give the reason for each.

use super::checkpoint_upload::CheckpointUpload;
use super::inputs::{self, InputPaths};
use super::lease_guard::{LEASE_EXPIRED, LeaseGuard, LeaseLost};
use super::metrics::AttemptEnd;
use super::preemption::Preemption;
use super::progress_channel::ProgressChannel;
use super::publish::{AttemptError, AttemptOutcome, JobResults, retryable_job_error};
use super::stop_signal::StopSignal;
use super::{WorkerContext, background, publish};
use crate::store::blobs::Reservation;
use crate::store::{Change, ClaimedJob, RequestedAction};
use espalier_core::artifact::{self, AdapterManifest, PublishedAdapter};
use espalier_core::error::{Error, Result};
use espalier_core::training::{Dirs, MetricsRow, Outcome, Progress, StopReason, TrainingData, TrainingResult};
use espalier_tensor::allocator;
use std::convert::Infallible;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// One attempt at a claimed job.
pub struct Attempt<'a> {
    context: &'a WorkerContext,
    claim: ClaimedJob,
    started_at: Instant,
    stop_signal: Arc<StopSignal>,
    lease_guard: LeaseGuard,
    progress_channel: Arc<ProgressChannel>,
    preemption: Preemption<'a>,
    checkpoint_upload: CheckpointUpload,
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
        let preemption = Preemption::new(context, &claim.job, claim_sent_at);
        let checkpoint_upload = CheckpointUpload::new(Arc::clone(&context.blobs), claim.job.id);
        Self {
            context,
            claim,
            started_at: claim_sent_at,
            stop_signal,
            lease_guard,
            progress_channel,
            preemption,
            checkpoint_upload,
        }
    }

    /// Runs the attempt; meanwhile it sends heartbeats, and looks for jobs of other owners. The job's result is in its row.
    pub async fn run(self) -> AttemptOutcome {
        tokio::select! {
            outcome = self.run_to_completion() => outcome,
            never = self.renew_lease_loop() => match never {},
            never = self.preemption.run(&self.progress_channel, &self.stop_signal) => match never {},
            never = self.checkpoint_upload.run() => match never {},
        }
    }

    async fn run_to_completion(&self) -> AttemptOutcome {
        let executed = self.execute().await;
        self.preemption.record_slot_time().await;
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
        if matches!(stop_reason, StopReason::Requeue | StopReason::Pause | StopReason::Preempt)
            && let Some(progress) = self.progress_channel.progress()
        {
            // The run has saved its last step. The next attempt may be made on another host.
            self.checkpoint_upload.upload(progress.step).await;
        }
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
        self.context.blobs.download_checkpoint(self.claim.job.id).await?;
        // A kill during training loses the steps since the last checkpoint. The next attempt repeats them bit for bit.
        let (metric_rows, mut trained) = self.train(data).instrument(tracing::debug_span!("train")).await?;
        // The last heartbeat renews the lease for publishing, writes the final progress and receives a late cancel.
        self.heartbeat().await?;
        self.check_stop()?;
        // After a kill from here on, the next attempt resumes from the checkpoint of the last step and repeats the last
        // evaluation. Its adapter has the same bytes and version, so it finds the folder in place.
        let results = JobResults::take(&mut trained);
        let write_artifact = self.write_artifact(trained).instrument(tracing::debug_span!("write adapter"));
        let (manifest, published, reservation) = write_artifact.await?;
        // Rows that exist are not written again. Writing all rows here makes them complete before the final status.
        self.write_under_lease("recording metrics", || {
            self.context.store.record_metrics(&self.claim.lease, &metric_rows)
        })
        .await?;
        let publish = self.publish(&manifest, &results, published);
        publish.instrument(tracing::debug_span!("publish")).await?;
        reservation.release().await;
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
        tokio::select! {
            data = self.load_inputs() => Ok(data?),
            // Reading has no side effects, so its thread is not awaited.
            () = self.stop_signal.shutdown().cancelled() => Err(AttemptError::Stopped(StopReason::Requeue)),
        }
    }

    /// Reads the inputs, and again after a download if the copies in the data folder are damaged.
    async fn load_inputs(&self) -> Result<TrainingData> {
        match self.read_inputs().await {
            Err(error) if ["dataset_damaged", "adapter_damaged"].contains(&error.code()) => {
                match inputs::quarantine(&self.context.blobs, &self.claim).await? {
                    true => self.read_inputs().await,
                    false => Err(error),
                }
            }
            other => other,
        }
    }

    async fn read_inputs(&self) -> Result<TrainingData> {
        let paths = InputPaths::fetch(&self.context.blobs, &self.claim).await?;
        let (claim, base) = (self.claim.clone(), Arc::clone(&self.context.base));
        let limits = self.context.settings.data.clone();
        background::run("read-dataset", move || inputs::load(&paths, &claim, &base, &limits)).await
    }

    /// Trains on a background thread, and writes its checkpoints and metrics to the store meanwhile.
    async fn train(&self, data: TrainingData) -> Result<(Vec<MetricsRow>, TrainingResult), AttemptError> {
        let (base, spec) = (Arc::clone(&self.context.base), self.claim.job.spec.clone());
        let settings = self.context.settings.training.clone();
        let folder = self.context.blobs.data_dir();
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
        tokio::task::spawn_blocking(allocator::trim_allocator);
        self.flush_updates().await?;
        match outcome? {
            Outcome::Finished(trained) => Ok((trained.metrics_rows.clone(), *trained)),
            Outcome::Stopped(stop) => Err(AttemptError::Stopped(stop)),
        }
    }

    async fn write_artifact(
        &self,
        trained: TrainingResult,
    ) -> Result<(AdapterManifest, PublishedAdapter, Reservation)> {
        let (base, spec) = (Arc::clone(&self.context.base), self.claim.job.spec.clone());
        let build = move || publish::build_artifact(&base, &spec.resolved_spec(&trained), trained);
        let artifact = background::run("write-adapter", build).await?;
        let (manifest, base) = (artifact.manifest.clone(), Arc::clone(&self.context.base));
        let write =
            move |adapters: &Path, temporary: &Path| artifact::publish_artifact(&artifact, &base, adapters, temporary);
        let (published, reservation) = self.context.blobs.put_adapter(write).await?;
        Ok((manifest, published, reservation))
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

    /// Sends heartbeats until the lease is lost: at the interval, and when the owner has requested an action.
    async fn renew_lease_loop(&self) -> Infallible {
        let (job, mut changes) = (self.claim.job.id, self.context.store.changes());
        let is_request = |change| change == Change::JobActionRequested(job);
        loop {
            tokio::select! {
                () = sleep(self.context.settings.heartbeat_interval) => {}
                () = changes.changed(is_request) => {}
            }
            if self.heartbeat().await.is_err() {
                std::future::pending::<Infallible>().await;
            }
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
            self.checkpoint_upload.request(step);
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
        if let Err(error) = self.context.blobs.remove_checkpoints(self.claim.job.id).await {
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
