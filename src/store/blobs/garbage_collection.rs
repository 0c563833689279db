//! Garbage collection: removes blobs without a row. A crash leaves them between the write of a blob and of its row, or
//! between the deletion of a row and of its blob.

use super::data_dir::DataDir;
use super::gc_pins::is_younger_than;
use super::layout::{self, is_sha256_hex};
use espalier_core::durable_fs;
use espalier_core::error::{Context, Result};
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};
use uuid::Uuid;

/// Age at which a temporary file is abandoned: no upload and no write takes as long.
const TEMP_FILE_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Blobs that rows refer to, read from the store before the garbage collection begins.
#[derive(Debug, Clone, Default)]
pub struct LiveBlobs {
    pub dataset_hashes: HashSet<String>,
    pub adapter_versions: HashSet<String>,
    /// Jobs whose checkpoints are kept: unfinished ones, and failed ones that may be retried.
    pub resumable_jobs: HashSet<Uuid>,
}

/// Numbers and size of removed blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    pub datasets: usize,
    pub adapters: usize,
    pub checkpoints: usize,
    pub bytes: u64,
}

/// What a garbage collection does with a blob that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcAction {
    Remove,
    /// Counts it and leaves it.
    Report,
}

impl DataDir {
    /// Removes the blobs that are not in `live`. A blob is written before its row, so a blob younger than `min_age` stays
    /// (one hour outside tests). A file whose name is not a blob name stays too.
    pub fn garbage_collect(&self, live: &LiveBlobs, min_age: Duration, action: GcAction) -> Result<GcReport> {
        let collect = || -> io::Result<GcReport> {
            let mut report = GcReport::default();
            report.datasets =
                self.collect_dead(&self.datasets_dir(), &live.dataset_hashes, (min_age, action), &mut report.bytes)?;
            report.adapters =
                self.collect_dead(&self.adapters_dir(), &live.adapter_versions, (min_age, action), &mut report.bytes)?;
            report.checkpoints =
                self.collect_dead_checkpoints(&live.resumable_jobs, (min_age, action), &mut report.bytes)?;
            if action == GcAction::Remove {
                self.gc_pins.remove_expired(min_age)?;
                self.remove_abandoned_temp_files()?;
            }
            Ok(report)
        };
        collect().context("collecting garbage in the data folder")
    }

    /// Size of the checkpoints of a job.
    pub fn checkpoint_bytes(&self, job: Uuid) -> u64 {
        file_bytes(&self.job_checkpoint_dir(job))
    }

    /// Jobs with a checkpoint directory. If the caller lists them before it reads the resumable jobs, a job that is not
    /// among those is finished, and its checkpoints can be removed at any age.
    pub fn jobs_with_checkpoints(&self) -> Result<Vec<Uuid>> {
        let names = entry_names(&self.checkpoints_dir()).context("listing the folders of checkpoints")?;
        Ok(names.iter().filter_map(|name| Uuid::parse_str(name).ok()).collect())
    }

    fn collect_dead(
        &self,
        dir: &Path,
        live: &HashSet<String>,
        (min_age, action): (Duration, GcAction),
        bytes: &mut u64,
    ) -> io::Result<usize> {
        let mut collected = 0;
        for name in entry_names(dir)?.iter().filter(|name| is_sha256_hex(name) && !live.contains(*name)) {
            let blob = dir.join(name);
            let size = file_bytes(&blob);
            if self.collect_if_expired(name, &blob, (min_age, action))? {
                collected += 1;
                *bytes += size;
            }
        }
        Ok(collected)
    }

    fn collect_dead_checkpoints(
        &self,
        live: &HashSet<Uuid>,
        (min_age, action): (Duration, GcAction),
        bytes: &mut u64,
    ) -> io::Result<usize> {
        let mut collected = 0;
        for job in entry_names(&self.checkpoints_dir())?.iter().filter_map(|name| Uuid::parse_str(name).ok()) {
            let dir = self.job_checkpoint_dir(job);
            if live.contains(&job) {
                continue;
            }
            let size = file_bytes(&dir);
            if self.collect_if_expired(&job.to_string(), &dir, (min_age, action))? {
                collected += 1;
                *bytes += size;
            }
        }
        Ok(collected)
    }

    /// Removes temporary files whose removal failed when they were abandoned.
    fn remove_abandoned_temp_files(&self) -> io::Result<()> {
        for name in entry_names(&self.temp_dir())? {
            let path = self.temp_dir().join(name);
            if is_younger_than(&path, TEMP_FILE_MAX_AGE) {
                continue;
            }
            match path.is_dir() {
                true => fs::remove_dir_all(&path)?,
                false => durable_fs::remove_file_if_exists(&path)?,
            }
        }
        Ok(())
    }

    /// Returns whether the blob is garbage, after its removal. The check and the removal happen under one lock, so that no process
    /// writes the blob again in between.
    fn collect_if_expired(&self, name: &str, blob: &Path, (min_age, action): (Duration, GcAction)) -> io::Result<bool> {
        let _guard = self.gc_pins.lock()?;
        if is_younger_than(blob, min_age) || self.gc_pins.is_pinned(name, min_age) {
            return Ok(false);
        }
        match action {
            GcAction::Report => return Ok(true),
            GcAction::Remove if self.gc_pins.is_backup_running()? => return Ok(false),
            GcAction::Remove => {}
        }
        match blob.is_dir() {
            true => layout::remove_dir_atomically(blob, &self.temp_dir())?,
            false => durable_fs::remove_file_if_exists(blob)?,
        }
        Ok(true)
    }
}

/// Size of a file, or of the files in a folder. What another process removes meanwhile counts nothing.
pub(super) fn file_bytes(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    match metadata.is_dir() {
        false => metadata.len(),
        true => {
            let entries = fs::read_dir(path).into_iter().flatten();
            entries.filter_map(|entry| Some(file_bytes(&entry.ok()?.path()))).sum()
        }
    }
}

pub(super) fn entry_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
