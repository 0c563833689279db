//! How a run speaks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    pub step: u64,
    pub total_steps: u64,
    pub epoch: f64,
    pub train_loss: f64,
    pub examples_per_second: f64,
    pub eta_seconds: f64,
    /// Metrics rows not yet spoken of, in order; after a resume all of the run's so far. Writing one twice must be harmless.
    #[serde(skip)]
    pub new_rows: Vec<MetricsRow>,
    /// A checkpoint of this step is safely on disk.
    #[serde(skip)]
    pub has_new_checkpoint: bool,
}

/// One row of metrics: a function of data, spec and seed, never of time or place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricsRow {
    pub step: u64,
    /// `train` (every few steps), `validation` (at the end of an epoch), `start`: what became of the adapter that the job
    /// starts from, `samples`: what it says after an epoch, or `race`: who was dropped at a rung.
    pub split: String,
    #[schema(value_type = Object)]
    pub metrics: serde_json::Value,
}

/// Why a run is to stop before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Cancel,
    Pause,
    /// The server is going down: somebody goes on from the checkpoint.
    Requeue,
    /// The lease was lost: the job is somebody else's, and nothing more may be written.
    LeaseLost,
}
