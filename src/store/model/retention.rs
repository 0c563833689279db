//! Retention policy, and what it deletes.

use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// Number of ids of each kind in a report.
const MAX_REPORTED_IDS: usize = 100;

/// What is kept. `None` keeps everything. Two limits of one kind hold independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// How long finished jobs are kept.
    pub keep_jobs: Option<Duration>,
    /// Number of the newest finished jobs of each owner that are kept.
    pub max_finished_jobs: Option<u32>,
    /// How long the metrics events of finished jobs are kept.
    pub keep_events: Option<Duration>,
    /// How long datasets are kept after their last use.
    pub keep_datasets: Option<Duration>,
    /// Number of the newest adapters of each name that are kept.
    pub keep_versions: Option<u32>,
    /// How long an adapter is kept after its name has begun to point to another one.
    pub keep_superseded: Option<Duration>,
    /// How long the checkpoints of failed jobs are kept.
    pub keep_checkpoints: Duration,
}

/// Rows of one kind that are deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeletedKind {
    pub count: u64,
    /// Size of their files that no remaining row refers to.
    pub bytes: u64,
    /// The first 100 ids.
    pub ids: Vec<Uuid>,
}

impl DeletedKind {
    /// Counts a row. `freed_bytes` is the size of its file if no other row refers to it.
    pub fn add(&mut self, id: Uuid, freed_bytes: u64) {
        self.count += 1;
        self.bytes += freed_bytes;
        if self.ids.len() < MAX_REPORTED_IDS {
            self.ids.push(id);
        }
    }
}

/// Rows that the policy does not keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeletedRows {
    /// Jobs; their events are deleted with them.
    pub jobs: DeletedKind,
    /// Metrics events of jobs that are kept.
    pub events: u64,
    pub datasets: DeletedKind,
    pub adapters: DeletedKind,
    /// Hashes of the deleted datasets whose files no other dataset refers to.
    #[serde(skip)]
    pub unreferenced_hashes: Vec<String>,
    /// Versions of the deleted adapters that no other adapter refers to.
    #[serde(skip)]
    pub unreferenced_versions: Vec<String>,
}
