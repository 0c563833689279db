//! Settings of the workers, and the services that they share.

use crate::store::Store;
use crate::store::blobs::DataDir;
use espalier_core::model::BaseModel;
use espalier_core::{dataset, training};
use std::sync::Arc;
use std::time::Duration;

/// Settings of the workers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of jobs that are trained at once.
    pub slots: usize,
    pub lease_duration: Duration,
    pub heartbeat_interval: Duration,
    /// How often an idle worker polls for jobs that it was not notified of.
    pub poll_interval: Duration,
    pub max_attempts: u32,
    pub training: training::Settings,
    pub data: dataset::Limits,
}

/// Shared services and settings of the workers.
#[derive(Clone)]
pub struct WorkerContext {
    pub base: Arc<BaseModel>,
    pub store: Arc<dyn Store>,
    pub data_folder: Arc<DataDir>,
    pub settings: Settings,
}
