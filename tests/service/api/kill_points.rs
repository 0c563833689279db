//! Moments of a job at which its server is killed.

use crate::api::server_process::{ServerProcess, TIMEOUT};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub enum KillPoint {
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

impl KillPoint {
    /// Returns when it has come; the attempt must have begun.
    pub fn wait_until_reached(self, app: &ServerProcess, job: &str) {
        let data = app.setup.data_dir();
        match self {
            // not to wait for anything: the time itself is what was drawn
            Self::After(time) => std::thread::sleep(time),
            Self::Checkpoint => wait_until("a checkpoint", || is_being_written(&data.join("checkpoints").join(job))),
            Self::Adapter => {
                wait_until("an adapter's files", || instance_dirs(&data).iter().any(|folder| is_being_written(folder)));
            }
            Self::Folder => wait_until("an adapter's folder", || !file_names(&data.join("adapters")).is_empty()),
            Self::Row => drop(app.wait_for_log("adapter published")),
        }
    }
}

/// Looks for something in the data folder, which nothing tells of, until it is there.
pub fn wait_until(what: &str, is_there: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < TIMEOUT, "{what} did not appear");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn is_being_written(folder: &Path) -> bool {
    file_names(folder).iter().any(|name| name.starts_with(".tmp"))
}

/// The folders for temporary files, one for each instance.
pub fn instance_dirs(data: &Path) -> Vec<PathBuf> {
    let temporary = data.join("temporary");
    file_names(&temporary).iter().map(|name| temporary.join(name)).collect()
}

/// What is in a folder; nothing where it is missing.
pub fn file_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Waits until what was done with is removed, which comes after a job's row.
pub fn wait_for_cleanup(app: &ServerProcess) {
    let data = app.setup.data_dir();
    wait_until("the end of the cleaning up", || {
        file_names(&data.join("checkpoints")).is_empty()
            && instance_dirs(&data).iter().all(|folder| file_names(folder).is_empty())
    });
}

/// The steps of a job's whole checkpoints, rising.
pub fn checkpoint_steps(data: &Path, job: &str) -> Vec<u64> {
    let names = file_names(&data.join("checkpoints").join(job));
    let step = |name: &String| name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok();
    let mut steps: Vec<u64> = names.iter().filter_map(step).collect();
    steps.sort_unstable();
    steps
}
