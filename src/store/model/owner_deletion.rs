//! Deletion of everything that belongs to an owner.

use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Receipt of the deletion of everything that belongs to an owner.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OwnerDeletion {
    pub owner: String,
    /// Whether nothing was deleted, and this is what would be.
    pub dry_run: bool,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    /// Unfinished jobs that were cancelled first.
    pub cancelled_jobs: Vec<Uuid>,
    #[serde(flatten)]
    pub deleted: DeletedOwnerRows,
    /// Size of the deleted files, without checkpoints.
    pub bytes: u64,
}

/// Rows of an owner that are deleted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct DeletedOwnerRows {
    /// Number of deleted rows by table. Tables without rows of the owner are left out.
    pub rows: BTreeMap<String, u64>,
    pub jobs: Vec<Uuid>,
    pub datasets: Vec<DeletedFile>,
    pub adapters: Vec<DeletedFile>,
}

/// Deleted dataset or adapter.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeletedFile {
    pub id: Uuid,
    /// Hash of the dataset, or version of the adapter.
    pub sha256: String,
    pub bytes: u64,
    /// Whether the file is kept, because a row of another owner refers to it.
    pub shared: bool,
}

impl DeletedOwnerRows {
    pub fn count(&mut self, table: &str, rows: u64) {
        if rows > 0 {
            *self.rows.entry(table.to_string()).or_default() += rows;
        }
    }

    /// Whether nothing is left to delete.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn append(&mut self, other: Self) {
        other.rows.into_iter().for_each(|(table, rows)| self.count(&table, rows));
        self.jobs.extend(other.jobs);
        self.datasets.extend(other.datasets);
        self.adapters.extend(other.adapters);
    }
}
