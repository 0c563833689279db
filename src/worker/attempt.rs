//! One attempt at one job, from its claim to its end.
//!
//! Killed at any point, nothing is lost and nothing is half done. The comments at each step say why.

use super::attempt_error::{AttemptError, retryable_job_error};
use super::inputs;
use super::lease_guard::{LEASE_EXPIRED, LeaseGuard, LeaseLost};
use super::progress_channel::ProgressChannel;
use super::stop_signal::StopSignal;
use super::{WorkerContext, background, publish, warm_start};
use crate::store::{Claim, RequestedAction};
use espalier_core::artifact::{AdapterManifest, PublishedAdapter};
use espalier_core::error::{Error, Result};
use espalier_core::training::successive_halving::HalvingResult;
use espalier_core::training::{Dirs, MetricsRow, Outcome, StopReason, TrainingData, TrainingResult};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Whether the machine is fit for the next job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// As it should, be it with an adapter, with a failed job, or as told.
    Finished,
    /// By a fault of ours: better to rest a moment.
    InternalError,
}

pub struct Attempt<'a> {
    context: &'a WorkerContext,
    claim: Claim,
    stop_signal: Arc<StopSignal>,
    lease_guard: LeaseGuard,
    progress_channel: Arc<ProgressChannel>,
}

impl<'a> Attempt<'a> {
    /// `claimed`: before the claim was sent.
    pub fn new(context: &'a WorkerContext, claim: Claim, claim_sent_at: Instant, shutdown: CancellationToken) -> Self {
        let lease = context.settings.lease_duration;
        // Counted from before the claim was sent: never longer here than in the database.
        let stop_signal = Arc::new(StopSignal::new(shutdown, claim_sent_at + lease));
        let lease_guard = LeaseGuard::new(lease, Arc::clone(&stop_signal));
        let progress_channel = Arc::new(ProgressChannel::new(Arc::clone(&stop_signal)));
        Self { context, claim, stop_signal, lease_guard, progress_channel }
    }

    /// Whatever becomes of the job is in its row.
    pub async fn run(self) -> AttemptOutcome {
        tokio::select! {
            outcome = self.run_to_completion() => outcome,
            never = self.renew_lease_loop() => match never {},
        }
    }

    async fn run_to_completion(&self) -> AttemptOutcome {
        let Err(error) = self.execute().await else { return AttemptOutcome::Finished };
        match error {
            AttemptError::Stopped(stop) => self.record_stop(stop).await,
            AttemptError::Failed(error) => {
                tracing::info!(code = error.code, detail = error.detail, "job failed");
                if self
                    .write_under_lease("failing", || self.context.store.fail_job(&self.claim.lease, &error))
                    .await
                    .is_ok()
                {
                    // After the row: a kill in between leaves files that the sweep finds.
                    self.remove_checkpoints().await;
                }
            }
            AttemptError::Internal(error) => {
                tracing::error!(%error, "attempt broke");
                // The checkpoint stays: the next attempt goes on from it. Where the row cannot be written either, the
                // lease runs out.
                let job_error = retryable_job_error();
                let _ = self
                    .write_under_lease("giving up", || {
                        self.context.store.record_failed_attempt(&self.claim.lease, &job_error)
                    })
                    .await;
                return AttemptOutcome::InternalError;
            }
        }
        AttemptOutcome::Finished
    }

    async fn record_stop(&self, stop_reason: StopReason) {
        let (store, lease) = (&self.context.store, &self.claim.lease);
        tracing::info!(?stop_reason, "attempt stopped");
        // A write that fails has lost the lease: then the next claim settles the job, as its owner wishes.
        let _ = match stop_reason {
            StopReason::LeaseLost => Err(self.lease_guard.mark_lost("training", LEASE_EXPIRED)),
            StopReason::Requeue => self.write_under_lease("releasing", || store.requeue(lease)).await,
            StopReason::Pause => {
                self.write_under_lease("pausing", || store.complete_requested_action(lease, RequestedAction::Pause))
                    .await
            }
            StopReason::Cancel => {
                // Before the row, so that whoever reads `cancelled` finds nothing left. A cancel is never taken back: a
                // kill in between costs only what the next claim throws away.
                self.remove_checkpoints().await;
                self.write_under_lease("cancelling", || store.complete_requested_action(lease, RequestedAction::Cancel))
                    .await
            }
        };
    }

    async fn execute(&self) -> Result<(), AttemptError> {
        tracing::info!("attempt begins");
        self.check_base()?;
        // Up to here and through the reading a kill costs nothing: there is only the claim, and it runs out.
        let data = self.load_data().await?;
        self.check_stop()?;
        // A kill while training costs the steps since the last checkpoint, which the next attempt repeats exactly.
        let (metric_rows, trained) = self.train(data).await?;
        // The last word before publishing: the lease is fresh, the progress complete, and a late cancel still heard.
        self.heartbeat().await?;
        self.check_stop()?;
        // A kill from here on repeats the last evaluation, from the checkpoint of the last step. It gives the same bytes,
        // so the same version: the folder is written once, and found by the attempt that finds it there.
        let race = trained.successive_halving.clone();
        let (manifest, published) = self.write_artifact(trained).await?;
        // Rows that are there already are left alone; with all of them written here, none can be missing.
        self.write_under_lease("recording metrics", || {
            self.context.store.record_metrics(&self.claim.lease, &metric_rows)
        })
        .await?;
        self.publish(&manifest, race.as_ref(), published).await?;
        // After the row: a kill in between leaves files that the sweep finds.
        self.remove_checkpoints().await;
        Ok(())
    }

    /// The base and the kernels decide bytes, so a job is only for those that it was submitted to.
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
        let settings = self.context.settings.data.clone();
        let base = Arc::clone(&self.context.base);
        let load = background::run("read-dataset", move || {
            let source = warm_start::load_source(&folder.adapters_dir(), &claim.job.spec, &base)?;
            Ok(TrainingData { source_weights: source, ..inputs::load(&folder, &claim, &base, &settings)? })
        });
        tokio::select! {
            data = load => Ok(data?),
            // Reading writes nothing, so it need not be waited for.
            () = self.stop_signal.shutdown().cancelled() => Err(AttemptError::Stopped(StopReason::Requeue)),
        }
    }

    async fn train(&self, data: TrainingData) -> Result<(Vec<MetricsRow>, TrainingResult), AttemptError> {
        let (base, spec) = (Arc::clone(&self.context.base), self.claim.job.spec.clone());
        let settings = self.context.settings.training.clone();
        let folder = &self.context.data_folder;
        let folders = Dirs {
            checkpoints: folder.job_checkpoint_dir(self.claim.job.id),
            feature_cache: folder.feature_cache_dir(),
        };
        let progress_channel = Arc::clone(&self.progress_channel);
        let train =
            move || spec.run(&base, &data, &folders, &settings, &mut |progress| progress_channel.report(progress));
        let mut training = pin!(background::run("train", train));
        let outcome = loop {
            tokio::select! {
                outcome = &mut training => break outcome,
                // Where the lease is lost the thread hears of it, and there is nothing to do but to await its end.
                () = self.progress_channel.changed() => { let _ = self.flush_updates().await; }
            }
        };
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

    async fn publish(
        &self,
        manifest: &AdapterManifest,
        race: Option<&HalvingResult>,
        published: PublishedAdapter,
    ) -> Result<(), LeaseLost> {
        let (store, job) = (&self.context.store, &self.claim.job);
        let finished_at = self.write_under_lease("asking the time", || store.now()).await?;
        let provenance = publish::provenance(self.context, job, self.progress_channel.progress().as_ref(), finished_at);
        let adapter = publish::adapter_row(job, manifest, published, provenance);
        let metrics = publish::job_metrics(manifest, race);
        let publish_row = || store.publish(&self.claim.lease, adapter.clone(), &metrics);
        let adapter = self.write_under_lease("publishing", publish_row).await?;
        tracing::info!(adapter = %adapter.id, version = adapter.description.version, "adapter published");
        Ok(())
    }

    /// Keeps the lease alive for as long as it is polled.
    async fn renew_lease_loop(&self) -> Infallible {
        loop {
            sleep(self.context.settings.heartbeat_interval).await;
            if self.heartbeat().await.is_err() {
                std::future::pending::<Infallible>().await;
            }
        }
    }

    async fn heartbeat(&self) -> Result<(), LeaseLost> {
        let settings = &self.context.settings;
        let send_heartbeat = || async {
            let (sent_at, progress) = (Instant::now(), self.progress_channel.progress());
            let requested_action =
                self.context.store.heartbeat(&self.claim.lease, settings.lease_duration, progress.as_ref()).await?;
            Ok((sent_at, requested_action))
        };
        let (sent_at, requested_action) = self.write_under_lease("keeping the lease", send_heartbeat).await?;
        self.lease_guard.extend(sent_at);
        self.stop_signal.set_requested_action(requested_action);
        Ok(())
    }

    /// What the training thread has said since the last time goes to the database.
    async fn flush_updates(&self) -> Result<(), LeaseLost> {
        let (store, lease, updates) = (&self.context.store, &self.claim.lease, self.progress_channel.take_updates());
        // First: an attempt that saved something must not count as one that did not. Rows are said again on resuming.
        if let Some(step) = updates.checkpoint {
            self.write_under_lease("noting a checkpoint", || store.record_checkpoint(lease, step)).await?;
        }
        if !updates.rows.is_empty() {
            self.write_under_lease("recording metrics", || store.record_metrics(lease, &updates.rows)).await?;
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), AttemptError> {
        self.stop_signal.stop_reason().map_or(Ok(()), |stop| Err(AttemptError::Stopped(stop)))
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
            tracing::warn!(%error, "checkpoints were not removed; the sweep will");
        }
    }
}

/// A thread that still works for an attempt that nobody follows any more is to stop, and to write nothing.
impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.stop_signal.abandon();
    }
}
