//! Moments of a job at which its server is killed.

use crate::api::app::{App, PATIENCE};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// That long after the attempt began, wherever the job is by then.
    After(Duration),
    /// A checkpoint is being written.
    Checkpoint,
    /// The adapter's files are being written.
    Adapter,
    /// The adapter's folder is in its place; its row is about to be written.
    Folder,
    /// The row is written; the checkpoints are about to be removed.
    Row,
}

impl Moment {
    /// Returns when it has come; the attempt must have begun.
    pub fn wait(self, app: &App, job: &str) {
        let data = app.setup.data();
        match self {
            // not to wait for anything: the time itself is what was drawn
            Self::After(time) => std::thread::sleep(time),
            Self::Checkpoint => until("a checkpoint", || is_being_written(&data.join("checkpoints").join(job))),
            Self::Adapter => {
                until("an adapter's files", || instances(&data).iter().any(|folder| is_being_written(folder)));
            }
            Self::Folder => until("an adapter's folder", || !names(&data.join("adapters")).is_empty()),
            Self::Row => drop(app.wait_for_log("adapter published")),
        }
    }
}

/// Looks for something in the data folder, which nothing tells of, until it is there.
pub fn until(what: &str, is_there: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < PATIENCE, "{what} did not appear");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn is_being_written(folder: &Path) -> bool {
    names(folder).iter().any(|name| name.starts_with(".tmp"))
}

/// The folders for temporary files, one for each instance.
pub fn instances(data: &Path) -> Vec<PathBuf> {
    let temporary = data.join("temporary");
    names(&temporary).iter().map(|name| temporary.join(name)).collect()
}

/// What is in a folder; nothing where it is missing.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Waits until what was done with is removed, which comes after a job's row.
pub fn settled(app: &App) {
    let data = app.setup.data();
    until("the end of the cleaning up", || {
        names(&data.join("checkpoints")).is_empty() && instances(&data).iter().all(|folder| names(folder).is_empty())
    });
}

/// The steps of a job's whole checkpoints, rising.
pub fn checkpoints(data: &Path, job: &str) -> Vec<u64> {
    let names = names(&data.join("checkpoints").join(job));
    let step = |name: &String| name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok();
    let mut steps: Vec<u64> = names.iter().filter_map(step).collect();
    steps.sort_unstable();
    steps
}
