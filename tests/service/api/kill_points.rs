//! Points of a job at which tests kill the server.

use crate::api::server_process::{ServerProcess, TIMEOUT, TRAINING_TIMEOUT};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub enum KillPoint {
    /// This long after the start of the attempt, and at the latest at a checkpoint of this step or a later one.
    After(Duration, u64),
    /// While a checkpoint is written.
    Checkpoint,
    /// While the adapter's files are written.
    Adapter,
    /// After the adapter's folder is renamed into place, before its row is inserted.
    Folder,
    /// After the row is inserted, before the checkpoints are deleted.
    Row,
}

impl KillPoint {
    /// Waits for the point, or for the job's end where the point was too short to be seen; the attempt must have started.
    pub fn wait_until_reached(self, app: &ServerProcess, job: &str) {
        let data = app.setup.data_dir();
        match self {
            // The delay is the random input of this test, not a wait for a condition.
            Self::After(time, step) => {
                let started = Instant::now();
                while started.elapsed() < time && checkpoint_steps(&data, job).last() < Some(&step) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Self::Checkpoint => wait_until_within(TRAINING_TIMEOUT, "a checkpoint", || {
                is_being_written(&data.join("checkpoints").join(job)) || has_adapters(&data)
            }),
            Self::Adapter => wait_until_within(TRAINING_TIMEOUT, "an adapter's files", || {
                instance_dirs(&data).iter().any(|folder| is_being_written(folder)) || has_adapters(&data)
            }),
            Self::Folder => wait_until_within(TRAINING_TIMEOUT, "an adapter's folder", || has_adapters(&data)),
            Self::Row => drop(app.wait_for_log_since_start("adapter published")),
        }
    }
}

/// Polls until a condition on the data folder holds.
pub fn wait_until(what: &str, is_there: impl Fn() -> bool) {
    wait_until_within(TIMEOUT, what, is_there);
}

fn wait_until_within(timeout: Duration, what: &str, is_there: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < timeout, "{what} did not appear");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn has_adapters(data: &Path) -> bool {
    !file_names(&data.join("adapters")).is_empty()
}

fn is_being_written(folder: &Path) -> bool {
    file_names(folder).iter().any(|name| name.starts_with(".tmp"))
}

/// Folders of temporary files, one per instance.
pub fn instance_dirs(data: &Path) -> Vec<PathBuf> {
    let temporary = data.join("temporary");
    file_names(&temporary).iter().map(|name| temporary.join(name)).collect()
}

/// Entries of a folder; empty if it does not exist.
pub fn file_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Waits until the job's checkpoints are deleted, which happens after its row is updated.
pub fn wait_for_cleanup(app: &ServerProcess) {
    let data = app.setup.data_dir();
    wait_until("the end of the cleaning up", || {
        file_names(&data.join("checkpoints")).is_empty()
            && instance_dirs(&data).iter().all(|folder| file_names(folder).is_empty())
    });
}

/// Steps of a job's complete checkpoints in increasing order.
pub fn checkpoint_steps(data: &Path, job: &str) -> Vec<u64> {
    let names = file_names(&data.join("checkpoints").join(job));
    let step = |name: &String| name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok();
    let mut steps: Vec<u64> = names.iter().filter_map(step).collect();
    steps.sort_unstable();
    steps
}
