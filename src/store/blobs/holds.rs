//! Holds: marks on blobs that a row is about to need, though the row that needed them until now is being deleted.
//!
//! Without them, a file that is sent again at the moment its earlier dataset is deleted would be removed under its new row.
//! Knows nothing of what a blob is.

use super::disk;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

#[derive(Debug)]
pub struct Holds {
    folder: PathBuf,
}

impl Holds {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whoever puts or removes a blob does it under this lock, which is let go with the file.
    pub fn lock(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(self.folder.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    pub fn renew(&self, name: &str) -> io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(self.folder.join(name))?;
        file.set_modified(SystemTime::now())
    }

    pub fn is_fresh(&self, name: &str, age: Duration) -> bool {
        is_younger(&self.folder.join(name), age)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        disk::remove_file(&self.folder.join(name))
    }
}

/// What is not there is not young; what is from the future, or has no time, is.
pub fn is_younger(path: &Path, age: Duration) -> bool {
    let Ok(metadata) = path.metadata() else { return false };
    metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_none_or(|elapsed| elapsed < age)
}
