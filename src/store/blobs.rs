//! The data folder: dataset files by hash, adapter folders by version, checkpoints by job; its lock and instance id.

use crate::error::Result;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// An opened and locked data folder.
#[derive(Debug)]
pub struct DataFolder {}

impl DataFolder {
    /// Makes the folder where it is missing, takes its lock and reads (or draws) its instance id.
    ///
    /// # Errors
    /// `Conflict` (`data_folder_in_use`) where another process holds the lock.
    pub fn open(path: &Path) -> Result<Self> {
        let _ = path;
        todo!("written by the store room")
    }

    pub fn instance(&self) -> Uuid {
        todo!("written by the store room")
    }

    /// The file of a dataset.
    pub fn dataset(&self, hash: &str) -> PathBuf {
        let _ = hash;
        todo!("written by the store room")
    }

    /// The folder whose sub-folders are adapter versions.
    pub fn adapters(&self) -> PathBuf {
        todo!("written by the store room")
    }

    /// Where a job's checkpoints are.
    pub fn checkpoints(&self, job: Uuid) -> PathBuf {
        let _ = job;
        todo!("written by the store room")
    }

    /// For files that are not yet what they will be; emptied at start.
    pub fn temporary(&self) -> PathBuf {
        todo!("written by the store room")
    }

    /// Moves a finished file, whose sha256 is `hash`, to its place and onto the disk.
    pub fn put_dataset(&self, temporary_file: &Path, hash: &str) -> Result<PathBuf> {
        let _ = (temporary_file, hash);
        todo!("written by the store room")
    }
}
