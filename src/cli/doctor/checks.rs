//! Checks of the data folder, the disk space, the database, the listen address and the threads.

use super::CheckResult;
use crate::cli::client::{Client, ClientArgs};
use crate::cli::health::loopback_if_unspecified;
use crate::cli::output::format_bytes;
use crate::config::{Role, Secret, Settings, available_cores};
use crate::store;
use crate::store::blobs::ObjectStorage;
use espalier_core::error::Context;
use espalier_tensor::worker_pool::{Priority, spawn_compute_thread};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use tokio::runtime::Runtime;

/// Enough for a checkpoint, a dataset and an adapter.
const MIN_FREE_BYTES: u64 = 256 << 20;
const RECOMMENDED_FREE_BYTES: u64 = 2 << 30;

/// Checks whether the data folder is writable and has enough disk space.
pub fn check_data_dir(data_dir: &Path) -> Vec<CheckResult> {
    let subject = "data folder";
    let displayed_path = data_dir.display();
    let exists = data_dir.is_dir();
    // A missing folder would be created in its nearest existing parent.
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_path_buf());
    let Some(existing_parent) = absolute.ancestors().find(|parent| parent.exists()) else {
        return vec![CheckResult::fail(
            subject,
            format!("{displayed_path} cannot be found"),
            "name a folder with --data-dir",
        )];
    };
    let mut results = vec![match tempfile::tempfile_in(existing_parent) {
        Ok(_) if exists => CheckResult::pass(subject, format!("{displayed_path} is writable")),
        Ok(_) => CheckResult::pass(subject, format!("{displayed_path} does not exist: the first start creates it")),
        Err(error) => CheckResult::fail(
            subject,
            format!("{} is not writable: {error}", existing_parent.display()),
            "change its owner or its permissions, or name another folder with --data-dir",
        ),
    }];
    if let Ok(filesystem) = rustix::fs::statvfs(existing_parent) {
        results.push(check_disk_space(filesystem.f_bavail.saturating_mul(filesystem.f_frsize)));
    }
    results
}

fn check_disk_space(free_bytes: u64) -> CheckResult {
    let (subject, detail) = ("disk", format!("{} free for the data folder", format_bytes(free_bytes)));
    let hint = "free some space, or name a folder on another disk with --data-dir";
    match free_bytes {
        0..MIN_FREE_BYTES => CheckResult::fail(subject, detail, hint),
        MIN_FREE_BYTES..RECOMMENDED_FREE_BYTES => CheckResult::warn(subject, detail, hint),
        _ => CheckResult::pass(subject, detail),
    }
}

/// Checks whether an object can be written, read and deleted.
pub fn check_object_storage(objects: &ObjectStorage) -> CheckResult {
    let subject = "blob store";
    let checked = Runtime::new().context("starting threads").and_then(|runtime| runtime.block_on(objects.check()));
    match checked {
        Ok(()) => CheckResult::pass(subject, format!("{} stores, returns and deletes an object", objects.name())),
        Err(error) => CheckResult::fail(
            subject,
            format!("{}: {error}", objects.name()),
            "check the URL of --blob-store, the credentials in the environment, and what they allow; the log above has the reason",
        ),
    }
}

/// Checks whether the database answers and its schema matches this version.
pub fn check_database(url: &Secret) -> CheckResult {
    let subject = "database";
    if let Some(file) = url.expose().strip_prefix("sqlite://")
        && !Path::new(file).exists()
    {
        return CheckResult::pass(subject, "SQLite: the first start creates the file");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return CheckResult::fail(
                subject,
                format!("cannot start a thread: {error}"),
                "reduce the number of threads on this machine",
            );
        }
    };
    let answer = runtime.block_on(async {
        let store = store::connect(url.expose()).await?;
        store.now().await.map(|_| store.backend_name())
    });
    match answer {
        Ok(kind) => CheckResult::pass(subject, format!("{kind} answers and its schema matches this version")),
        Err(error) => CheckResult::from_error(subject, &error),
    }
}

/// Checks whether the address is free or a server already runs there.
pub fn check_address(listen: SocketAddr) -> CheckResult {
    match TcpListener::bind(listen) {
        Ok(_) => CheckResult::pass("address", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => check_occupied(listen),
        Err(error) => {
            CheckResult::fail("address", format!("cannot listen on {listen}: {error}"), "choose another with --listen")
        }
    }
}

fn check_occupied(listen: SocketAddr) -> CheckResult {
    let server = format!("http://{}", loopback_if_unspecified(listen));
    let args = ClientArgs { server: Some(server.clone()), ..ClientArgs::default() };
    match Client::new(&args).ok().and_then(|client| client.server_version()) {
        Some(version) => CheckResult::pass("address", format!("espalier {version} is running at {server}")),
        None => CheckResult::fail(
            "address",
            format!("{listen} is in use by another program"),
            "stop that program, or listen elsewhere with --listen",
        ),
    }
}

/// Checks the number of threads and the priority of training threads.
pub fn check_cpu(settings: &Settings) -> Vec<CheckResult> {
    let (serving, training) = (settings.serving.threads, settings.worker.training.threads);
    let detail = format!("{} cores: serving on {serving} threads, training on {training}", available_cores());
    let threads = match serving.max(training * settings.worker.slots) > 2 * available_cores() {
        false => CheckResult::pass("threads", detail),
        true => CheckResult::warn(
            "threads",
            detail,
            "threads beyond the number of cores slow each other down: lower --serving-threads, --training-threads or --slots",
        ),
    };
    match settings.role {
        Role::Api => vec![threads],
        Role::All | Role::Worker => vec![threads, check_priority()],
    }
}

fn check_priority() -> CheckResult {
    let subject = "priority";
    let (sender, receiver) = std::sync::mpsc::channel();
    let started = spawn_compute_thread("doctor", Priority::Background, move || {
        let _ = sender.send(thread_niceness());
    });
    let niceness = started.ok().and_then(|_| receiver.recv().ok()).flatten();
    match niceness {
        Some(19) => CheckResult::pass(subject, "training threads run at the lowest priority"),
        _ => CheckResult::warn(
            subject,
            "the priority of training threads cannot be lowered: predictions may be slower while a job trains",
            "leave a core to serving with --training-threads, or train in a separate process with --role",
        ),
    }
}

/// Returns the niceness of the calling thread: field 19 of its `stat` on Linux, the 17th after the name in parentheses.
fn thread_niceness() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    fn missing_data_dir_is_checked_at_its_nearest_parent() {
        let folder = tempfile::tempdir().unwrap();
        let results = check_data_dir(&folder.path().join("a/b"));
        assert_eq!(results[0].status, CheckStatus::Pass);
        assert!(results[0].detail.contains("first start creates it"));
        assert!(!folder.path().join("a").exists(), "the check creates nothing");
    }

    #[test]
    fn low_disk_space_is_reported() {
        let statuses = [1 << 20, 1 << 30, 1 << 40].map(|free| check_disk_space(free).status);
        assert_eq!(statuses, [CheckStatus::Fail, CheckStatus::Warn, CheckStatus::Pass]);
    }
}

#[cfg(test)]
mod machine_tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn training_threads_have_the_lowest_priority() {
        assert_eq!(check_priority().status, CheckStatus::Pass);
        assert_eq!(thread_niceness(), Some(0), "other threads keep their priority");
    }

    #[test]
    fn free_address_passes_and_occupied_address_fails() {
        let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = occupied.local_addr().unwrap();
        let other_program = std::thread::spawn(move || drop(occupied.accept()));
        let result = check_address(address);
        assert_eq!(result.status, CheckStatus::Fail);
        assert!(result.detail.contains("another program"), "{}", result.detail);
        other_program.join().unwrap();
        assert_eq!(check_address(address).status, CheckStatus::Pass);
    }
}
