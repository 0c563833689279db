//! One attempt at one job, from its claim to its end.
//!
//! Killed at any point, nothing is lost and nothing is half done. The comments at each step say why.

use super::dataset;
use super::end::{End, to_be_tried_again};
use super::hold::{Hold, Lost, TIME_IS_UP};
use super::orders::Orders;
use super::speech::Speech;
use super::{Workshop, publish, source, thread};
use crate::store::{Claim, Wish};
use espalier_core::artifact::{Card, Published};
use espalier_core::error::{Error, Result};
use espalier_core::training::race::Finish;
use espalier_core::training::{Data, Folders, Outcome, Row, Stop, Trained};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Whether the machine is fit for the next job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it should, be it with an adapter, with a failed job, or as told.
    Well,
    /// By a fault of ours: better to rest a moment.
    Broke,
}

pub struct Attempt<'a> {
    workshop: &'a Workshop,
    claim: Claim,
    orders: Arc<Orders>,
    hold: Hold,
    speech: Arc<Speech>,
}

impl<'a> Attempt<'a> {
    /// `claimed`: before the claim was sent.
    pub fn new(workshop: &'a Workshop, claim: Claim, claimed: Instant, shutdown: CancellationToken) -> Self {
        let lease = workshop.settings.lease;
        // Counted from before the claim was sent: never longer here than in the database.
        let orders = Arc::new(Orders::new(shutdown, claimed + lease));
        let hold = Hold::new(lease, Arc::clone(&orders));
        let speech = Arc::new(Speech::new(Arc::clone(&orders)));
        Self { workshop, claim, orders, hold, speech }
    }

    /// Whatever becomes of the job is in its row.
    pub async fn run(self) -> Ended {
        tokio::select! {
            ended = self.to_its_end() => ended,
            never = self.keep() => match never {},
        }
    }

    async fn to_its_end(&self) -> Ended {
        let Err(end) = self.make().await else { return Ended::Well };
        match end {
            End::Stopped(stop) => self.stopped(stop).await,
            End::Failed(error) => {
                tracing::info!(code = error.code, detail = error.detail, "job failed");
                if self.write("failing", || self.workshop.store.fail(&self.claim.lease, &error)).await.is_ok() {
                    // After the row: a kill in between leaves files that the sweep finds.
                    self.remove_checkpoints().await;
                }
            }
            End::Broke(error) => {
                tracing::error!(%error, "attempt broke");
                // The checkpoint stays: the next attempt goes on from it. Where the row cannot be written either, the
                // lease runs out.
                let told = to_be_tried_again();
                let _ = self.write("giving up", || self.workshop.store.give_up(&self.claim.lease, &told)).await;
                return Ended::Broke;
            }
        }
        Ended::Well
    }

    async fn stopped(&self, stop: Stop) {
        let (store, lease) = (&self.workshop.store, &self.claim.lease);
        tracing::info!(?stop, "attempt stopped");
        // A write that fails has lost the lease: then the next claim settles the job, as its owner wishes.
        let _ = match stop {
            Stop::Abandon => Err(self.hold.lose("training", TIME_IS_UP)),
            Stop::Release => self.write("releasing", || store.release(lease)).await,
            Stop::Pause => self.write("pausing", || store.stopped(lease, Wish::Pause)).await,
            Stop::Cancel => {
                // Before the row, so that whoever reads `cancelled` finds nothing left. A cancel is never taken back: a
                // kill in between costs only what the next claim throws away.
                self.remove_checkpoints().await;
                self.write("cancelling", || store.stopped(lease, Wish::Cancel)).await
            }
        };
    }

    async fn make(&self) -> Result<(), End> {
        tracing::info!("attempt begins");
        self.check_base()?;
        // Up to here and through the reading a kill costs nothing: there is only the claim, and it runs out.
        let data = self.read().await?;
        self.obey()?;
        // A kill while training costs the steps since the last checkpoint, which the next attempt repeats exactly.
        let (rows, trained) = self.train(data).await?;
        // The last word before publishing: the lease is fresh, the progress complete, and a late cancel still heard.
        self.beat().await?;
        self.obey()?;
        // A kill from here on repeats the last evaluation, from the checkpoint of the last step. It gives the same bytes,
        // so the same version: the folder is written once, and found by the attempt that finds it there.
        let race = trained.race.clone();
        let (card, published) = self.write_artifact(trained).await?;
        // Rows that are there already are left alone; with all of them written here, none can be missing.
        self.write("recording metrics", || self.workshop.store.record_rows(&self.claim.lease, &rows)).await?;
        self.publish(&card, race.as_ref(), published).await?;
        // After the row: a kill in between leaves files that the sweep finds.
        self.remove_checkpoints().await;
        Ok(())
    }

    /// The base and the kernels decide bytes, so a job is only for those that it was submitted to.
    fn check_base(&self) -> Result<()> {
        let (spec, info) = (&self.claim.job.spec, self.workshop.base.info());
        let differs = |what: &str, wanted: &str, have: &str| {
            let detail = format!(
                "the job was submitted for the {what} {wanted}, and the server now has {have}: submit it anew, or start \
                 the server as it was"
            );
            Err(Error::conflict("other_base", detail))
        };
        if spec.base() != info.fingerprint {
            return differs("base model", spec.base(), &info.fingerprint);
        }
        if spec.kernels() != info.kernels {
            return differs("kernel set", spec.kernels(), &info.kernels);
        }
        Ok(())
    }

    async fn read(&self) -> Result<Data, End> {
        let (folder, claim) = (Arc::clone(&self.workshop.folder), self.claim.clone());
        let settings = self.workshop.settings.data.clone();
        let base = Arc::clone(&self.workshop.base);
        let reading = thread::run("read-dataset", move || {
            let source = source::read(&folder.adapters(), &claim.job.spec, &base)?;
            Ok(Data { source, ..dataset::read(&folder, &claim, &base, &settings)? })
        });
        tokio::select! {
            data = reading => Ok(data?),
            // Reading writes nothing, so it need not be waited for.
            () = self.orders.shutdown().cancelled() => Err(End::Stopped(Stop::Release)),
        }
    }

    async fn train(&self, data: Data) -> Result<(Vec<Row>, Trained), End> {
        let (base, spec) = (Arc::clone(&self.workshop.base), self.claim.job.spec.clone());
        let settings = self.workshop.settings.training.clone();
        let folder = &self.workshop.folder;
        let folders = Folders { checkpoints: folder.checkpoints(self.claim.job.id), remembered: folder.remembered() };
        let speech = Arc::clone(&self.speech);
        let work = move || spec.carry_out(&base, &data, &folders, &settings, &mut |said| speech.report(said));
        let mut training = pin!(thread::run("train", work));
        let outcome = loop {
            tokio::select! {
                outcome = &mut training => break outcome,
                // Where the lease is lost the thread hears of it, and there is nothing to do but to await its end.
                () = self.speech.heard() => { let _ = self.pass_on().await; }
            }
        };
        self.pass_on().await?;
        match outcome? {
            Outcome::Finished(trained) => Ok((trained.rows.clone(), *trained)),
            Outcome::Stopped(stop) => Err(End::Stopped(stop)),
        }
    }

    async fn write_artifact(&self, trained: Trained) -> Result<(Card, Published)> {
        let (base, folder) = (Arc::clone(&self.workshop.base), Arc::clone(&self.workshop.folder));
        let spec = self.claim.job.spec.clone();
        let work = move || {
            let artifact = publish::artifact(&base, &spec.spec(&trained), trained)?;
            let published = publish::write(&artifact, &base, &folder)?;
            Ok((artifact.card, published))
        };
        thread::run("write-adapter", work).await
    }

    async fn publish(&self, card: &Card, race: Option<&Finish>, published: Published) -> Result<(), Lost> {
        let (store, job) = (&self.workshop.store, &self.claim.job);
        let finished_at = self.write("asking the time", || store.now()).await?;
        let provenance = publish::provenance(self.workshop, job, self.speech.progress().as_ref(), finished_at);
        let adapter = publish::adapter(job, card, published, provenance);
        let metrics = publish::metrics(card, race);
        let row = || store.publish(&self.claim.lease, adapter.clone(), &metrics);
        let adapter = self.write("publishing", row).await?;
        tracing::info!(adapter = %adapter.id, version = adapter.description.version, "adapter published");
        Ok(())
    }

    /// Keeps the lease alive for as long as it is polled.
    async fn keep(&self) -> Infallible {
        loop {
            sleep(self.workshop.settings.heartbeat).await;
            if self.beat().await.is_err() {
                std::future::pending::<Infallible>().await;
            }
        }
    }

    async fn beat(&self) -> Result<(), Lost> {
        let settings = &self.workshop.settings;
        let beat = || async {
            let (asked, progress) = (Instant::now(), self.speech.progress());
            let wish = self.workshop.store.heartbeat(&self.claim.lease, settings.lease, progress.as_ref()).await?;
            Ok((asked, wish))
        };
        let (asked, wish) = self.write("keeping the lease", beat).await?;
        self.hold.extend(asked);
        self.orders.wish(wish);
        Ok(())
    }

    /// What the training thread has said since the last time goes to the database.
    async fn pass_on(&self) -> Result<(), Lost> {
        let (store, lease, news) = (&self.workshop.store, &self.claim.lease, self.speech.fetch());
        // First: an attempt that saved something must not count as one that did not. Rows are said again on resuming.
        if let Some(step) = news.checkpoint {
            self.write("noting a checkpoint", || store.checkpointed(lease, step)).await?;
        }
        if !news.rows.is_empty() {
            self.write("recording metrics", || store.record_rows(lease, &news.rows)).await?;
        }
        Ok(())
    }

    fn obey(&self) -> Result<(), End> {
        self.orders.stop().map_or(Ok(()), |stop| Err(End::Stopped(stop)))
    }

    async fn write<T, F>(&self, doing: &str, write: impl Fn() -> F) -> Result<T, Lost>
    where
        F: Future<Output = Result<T>>,
    {
        self.hold.write(doing, write).await
    }

    async fn remove_checkpoints(&self) {
        let (folder, job) = (Arc::clone(&self.workshop.folder), self.claim.job.id);
        let removed = thread::run("remove-checkpoints", move || folder.remove_checkpoints(job)).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "checkpoints were not removed; the sweep will");
        }
    }
}

/// A thread that still works for an attempt that nobody follows any more is to stop, and to write nothing.
impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.orders.abandon();
    }
}
