//! Claim, train, publish, under a lease. Knows nothing of HTTP or serving.

use crate::error::Result;
use crate::model::Base;
use crate::store::Store;
use crate::store::blobs::DataFolder;
use crate::{data, training};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Jobs trained at once.
    pub slots: usize,
    pub lease: Duration,
    pub heartbeat: Duration,
    /// How often an idle worker looks for a job that nobody told it of.
    pub poll: Duration,
    pub max_attempts: u32,
    pub training: training::Settings,
    pub data: data::Settings,
}

/// What a worker needs of the house.
#[derive(Clone)]
pub struct Workshop {
    pub base: Arc<Base>,
    pub store: Arc<dyn Store>,
    pub folder: Arc<DataFolder>,
    pub settings: Settings,
}

/// The running slots.
pub struct Workers {}

impl Workers {
    pub fn start(workshop: Workshop) -> Self {
        let _ = workshop;
        todo!("written by the worker room")
    }

    /// Says that a job was queued, so that a free slot looks at once.
    pub fn wake(&self) {
        todo!("written by the worker room")
    }

    /// Stops claiming, lets running jobs write a checkpoint, hands their leases back.
    pub async fn stop(self) -> Result<()> {
        todo!("written by the worker room")
    }
}
