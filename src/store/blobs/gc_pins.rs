//! Holds: marks on blobs that a row is about to need, though the row that needed them until now is being deleted.
//!
//! Without them, a file that is sent again at the moment its earlier dataset is deleted would be removed under its new row.
//! Knows nothing of what a blob is.

use super::durable_fs;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

#[derive(Debug)]
pub struct GcPins {
    dir: PathBuf,
}

impl GcPins {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Whoever puts or removes a blob does it under this lock, which is let go with the file.
    pub fn lock(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(self.dir.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    pub fn pin(&self, name: &str) -> io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(self.dir.join(name))?;
        file.set_modified(SystemTime::now())
    }

    pub fn is_pinned(&self, name: &str, max_age: Duration) -> bool {
        is_younger_than(&self.dir.join(name), max_age)
    }

    pub fn unpin(&self, name: &str) -> io::Result<()> {
        durable_fs::remove_file_if_exists(&self.dir.join(name))
    }
}

/// What is not there is not young; what is from the future, or has no time, is.
pub fn is_younger_than(path: &Path, max_age: Duration) -> bool {
    let Ok(metadata) = path.metadata() else { return false };
    metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_none_or(|elapsed| elapsed < max_age)
}
