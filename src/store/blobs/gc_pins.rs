//! Pins: marks on blobs whose new row is about to be added while their old row is being deleted, and a lock that keeps all blobs while
//! a backup copies them.
//!
//! Without a pin, a file that is uploaded again while its old dataset is deleted would be removed after its new row is
//! added.

use super::layout::is_sha256_hex;
use espalier_core::durable_fs;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Folder of the pins that protect blobs from garbage collection.
#[derive(Debug)]
pub struct GcPins {
    dir: PathBuf,
}

impl GcPins {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Locks out every other process that writes or removes a blob, until the returned file is dropped.
    pub fn lock(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(self.dir.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// Keeps every blob until the returned file is dropped, or its process ends. Several processes can do it at once.
    pub fn lock_for_backup(&self) -> io::Result<File> {
        let _guard = self.lock()?;
        let file = self.open_backup_lock()?;
        // Only a process that holds the other lock ever locks this one exclusively.
        file.lock_shared()?;
        Ok(file)
    }

    /// Whether a backup reads the blobs. Call it while [`Self::lock`] is held: then no backup begins meanwhile.
    pub fn is_backup_running(&self) -> io::Result<bool> {
        match self.open_backup_lock()?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn open_backup_lock(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).read(true).write(true).open(self.dir.join("backup"))
    }

    pub fn pin(&self, name: &str) -> io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(self.dir.join(name))?;
        file.set_modified(SystemTime::now())
    }

    pub fn is_pinned(&self, name: &str, max_age: Duration) -> bool {
        is_younger_than(&self.dir.join(name), max_age)
    }

    /// Removes the pins that are at least `max_age` old.
    pub fn remove_expired(&self, max_age: Duration) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if !is_sha256_hex(&name) {
                continue;
            }
            let _guard = self.lock()?;
            if !self.is_pinned(&name, max_age) {
                durable_fs::remove_file_if_exists(&self.dir.join(name))?;
            }
        }
        Ok(())
    }
}

/// Returns false for a missing file. A file from the future, or without a modification time, counts as young.
pub fn is_younger_than(path: &Path, max_age: Duration) -> bool {
    let Ok(metadata) = path.metadata() else { return false };
    metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_none_or(|elapsed| elapsed < max_age)
}
