//! Points of a job at which tests kill the server.

use crate::api::server_process::{ServerProcess, TIMEOUT, TRAINING_TIMEOUT};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Log message after the adapter's row is inserted.
const PUBLISHED: &str = "adapter published";

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
                wait_until_within(TRAINING_TIMEOUT, "the random time", || {
                    started.elapsed() >= time || checkpoint_steps(&data, job).last() >= Some(&step)
                });
            }
            Self::Checkpoint => wait_until_within(TRAINING_TIMEOUT, "a checkpoint", || {
                is_being_written(&data.join("checkpoints").join(job)) || is_published(app)
            }),
            Self::Adapter => wait_until_within(TRAINING_TIMEOUT, "an adapter's files", || {
                instance_dirs(&data).iter().any(|folder| is_being_written(folder)) || is_published(app)
            }),
            Self::Folder => wait_until_within(TRAINING_TIMEOUT, "an adapter's folder", || {
                !file_names(&data.join("adapters")).is_empty()
            }),
            Self::Row => wait_until_within(TRAINING_TIMEOUT, "an adapter's row", || is_published(app)),
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

fn is_published(app: &ServerProcess) -> bool {
    app.log().iter().any(|line| line.contains(PUBLISHED))
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
