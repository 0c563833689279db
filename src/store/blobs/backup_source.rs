//! The data directory as a backup reads it, beside the processes that use it.

use super::gc_pins::GcPins;
use super::layout::{existing_format, unusable_data_dir};
use espalier_core::error::Result;
use std::fs::File;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Blobs of a data directory. None of them is removed while this exists.
#[derive(Debug)]
pub struct BackupSource {
    root: PathBuf,
    _lock: File,
}

impl BackupSource {
    /// Locks the blobs of an existing directory against removal.
    ///
    /// # Errors
    /// `Invalid` if the directory does not exist, has a newer format, or belongs to another program.
    pub fn lock(path: &Path) -> Result<Self> {
        existing_format(path)?;
        let lock = GcPins::new(path.join("pins")).lock_for_backup();
        Ok(Self { root: path.to_path_buf(), _lock: lock.map_err(|error| unusable_data_dir(path, &error))? })
    }

    pub fn dataset_path(&self, hash: &str) -> PathBuf {
        self.root.join("datasets").join(hash)
    }

    pub fn adapter_dir(&self, version: &str) -> PathBuf {
        self.root.join("adapters").join(version)
    }

    pub fn checkpoint_dir(&self, job: Uuid) -> PathBuf {
        self.root.join("checkpoints").join(job.to_string())
    }
}
