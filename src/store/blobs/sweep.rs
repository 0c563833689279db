//! The sweep: removes blobs that no row needs, left by a crash between blob and row, or between row and blob.

use super::holds::is_younger;
use super::{DataFolder, disk, is_hash};
use espalier_core::error::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// What rows need, read from the store before the sweep begins.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    pub hashes: HashSet<String>,
    pub versions: HashSet<String>,
    pub open_jobs: HashSet<Uuid>,
}

/// How much was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub datasets: usize,
    pub adapters: usize,
    pub checkpoints: usize,
}

impl DataFolder {
    /// Removes what no row needs. A blob is written before its row, so nothing younger than `age` is touched (an hour,
    /// outside tests), nor anything whose name is not one of ours.
    pub fn sweep(&self, needed: &Needed, age: Duration) -> Result<Swept> {
        self.sweep_all(needed, age).context("sweeping the data folder")
    }

    /// The jobs that have checkpoints. One that had them before the store was asked which jobs are open, and is not among
    /// those, is over for good: its checkpoints can go at any age.
    pub fn checkpointed_jobs(&self) -> Result<Vec<Uuid>> {
        let names = names(&self.all_checkpoints()).context("listing the folders of checkpoints")?;
        Ok(names.iter().filter_map(|name| Uuid::parse_str(name).ok()).collect())
    }

    fn sweep_all(&self, needed: &Needed, age: Duration) -> io::Result<Swept> {
        let mut swept = Swept::default();
        for hash in names(&self.datasets())?.into_iter().filter(|name| is_hash(name)) {
            let idle = !needed.hashes.contains(&hash);
            swept.datasets += usize::from(idle && self.sweep_blob(&hash, &self.dataset(&hash), age)?);
        }
        for version in names(&self.adapters())?.into_iter().filter(|name| is_hash(name)) {
            let idle = !needed.versions.contains(&version);
            swept.adapters += usize::from(idle && self.sweep_blob(&version, &self.adapters().join(&version), age)?);
        }
        for job in names(&self.all_checkpoints())?.iter().filter_map(|name| Uuid::parse_str(name).ok()) {
            let folder = self.checkpoints(job);
            if !needed.open_jobs.contains(&job) && !is_younger(&folder, age) {
                disk::remove_folder(&folder, &self.temporary())?;
                swept.checkpoints += 1;
            }
        }
        for name in names(&self.root.join("holds"))?.into_iter().filter(|name| is_hash(name)) {
            let _guard = self.holds.lock()?;
            if !self.holds.is_fresh(&name, age) {
                self.holds.remove(&name)?;
            }
        }
        Ok(swept)
    }

    /// Says whether it was removed. Looks and removes under the lock, so that nobody puts it again in between.
    fn sweep_blob(&self, name: &str, blob: &Path, age: Duration) -> io::Result<bool> {
        let _guard = self.holds.lock()?;
        if is_younger(blob, age) || self.holds.is_fresh(name, age) {
            return Ok(false);
        }
        match blob.is_dir() {
            true => disk::remove_folder(blob, &self.temporary())?,
            false => disk::remove_file(blob)?,
        }
        Ok(true)
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
