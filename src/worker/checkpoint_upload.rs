//! Upload of a job's checkpoints to object storage while it trains.

use crate::store::blobs::BlobStore;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// Uploads the newest checkpoint of an attempt, so that another host can resume its job.
pub struct CheckpointUpload {
    blobs: Arc<BlobStore>,
    job: Uuid,
    /// Step of the newest checkpoint in the data folder.
    newest_step: watch::Sender<u64>,
}

impl CheckpointUpload {
    pub fn new(blobs: Arc<BlobStore>, job: Uuid) -> Self {
        Self { blobs, job, newest_step: watch::Sender::new(0) }
    }

    /// Says that there is a new checkpoint in the data folder.
    pub fn request(&self, step: u64) {
        self.newest_step.send_replace(step);
    }

    /// Uploads whenever there is a new checkpoint. Checkpoints that are replaced during an upload are skipped.
    pub async fn run(&self) -> Infallible {
        let mut newest_step = self.newest_step.subscribe();
        loop {
            // The sender is a field, so it is never gone.
            let _ = newest_step.changed().await;
            let step = *newest_step.borrow_and_update();
            self.upload(step).await;
        }
    }

    /// Uploads the newest checkpoint, which is that of `step`.
    pub async fn upload(&self, step: u64) {
        if let Err(error) = self.blobs.upload_checkpoint(self.job, step).await {
            tracing::warn!(%error, step, "checkpoint not uploaded; another host would resume from an older one");
        }
    }
}
