//! The sweep: removes blobs that no row needs, left by a crash between blob and row, or between row and blob.

use super::gc_pins::is_younger_than;
use super::{DataDir, durable_fs, is_sha256_hex};
use espalier_core::error::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// What rows need, read from the store before the sweep begins.
#[derive(Debug, Clone, Default)]
pub struct LiveBlobs {
    pub dataset_hashes: HashSet<String>,
    pub adapter_versions: HashSet<String>,
    pub unfinished_jobs: HashSet<Uuid>,
}

/// How much was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    pub datasets: usize,
    pub adapters: usize,
    pub checkpoints: usize,
}

impl DataDir {
    /// Removes what no row needs. A blob is written before its row, so nothing younger than `age` is touched (an hour,
    /// outside tests), nor anything whose name is not one of ours.
    pub fn garbage_collect(&self, live: &LiveBlobs, min_age: Duration) -> Result<GcReport> {
        self.remove_unreferenced(live, min_age).context("sweeping the data folder")
    }

    /// The jobs that have checkpoints. One that had them before the store was asked which jobs are open, and is not among
    /// those, is over for good: its checkpoints can go at any age.
    pub fn jobs_with_checkpoints(&self) -> Result<Vec<Uuid>> {
        let names = entry_names(&self.checkpoints_dir()).context("listing the folders of checkpoints")?;
        Ok(names.iter().filter_map(|name| Uuid::parse_str(name).ok()).collect())
    }

    fn remove_unreferenced(&self, live: &LiveBlobs, min_age: Duration) -> io::Result<GcReport> {
        let mut report = GcReport::default();
        for hash in entry_names(&self.datasets_dir())?.into_iter().filter(|name| is_sha256_hex(name)) {
            let is_unreferenced = !live.dataset_hashes.contains(&hash);
            report.datasets +=
                usize::from(is_unreferenced && self.remove_if_expired(&hash, &self.dataset_path(&hash), min_age)?);
        }
        for version in entry_names(&self.adapters_dir())?.into_iter().filter(|name| is_sha256_hex(name)) {
            let idle = !live.adapter_versions.contains(&version);
            report.adapters +=
                usize::from(idle && self.remove_if_expired(&version, &self.adapters_dir().join(&version), min_age)?);
        }
        for job in entry_names(&self.checkpoints_dir())?.iter().filter_map(|name| Uuid::parse_str(name).ok()) {
            let dir = self.job_checkpoint_dir(job);
            if !live.unfinished_jobs.contains(&job) && !is_younger_than(&dir, min_age) {
                durable_fs::remove_dir_atomically(&dir, &self.temp_dir())?;
                report.checkpoints += 1;
            }
        }
        for name in entry_names(&self.root.join("holds"))?.into_iter().filter(|name| is_sha256_hex(name)) {
            let _guard = self.gc_pins.lock()?;
            if !self.gc_pins.is_pinned(&name, min_age) {
                self.gc_pins.unpin(&name)?;
            }
        }
        Ok(report)
    }

    /// Says whether it was removed. Looks and removes under the lock, so that nobody puts it again in between.
    fn remove_if_expired(&self, name: &str, blob: &Path, min_age: Duration) -> io::Result<bool> {
        let _guard = self.gc_pins.lock()?;
        if is_younger_than(blob, min_age) || self.gc_pins.is_pinned(name, min_age) {
            return Ok(false);
        }
        match blob.is_dir() {
            true => durable_fs::remove_dir_atomically(blob, &self.temp_dir())?,
            false => durable_fs::remove_file_if_exists(blob)?,
        }
        Ok(true)
    }
}

fn entry_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
