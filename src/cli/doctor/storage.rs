//! Checks of the data folder, the disk space and the database.

use super::CheckResult;
use crate::cli::output::format_bytes;
use crate::config::Secret;
use crate::store;
use std::path::Path;

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
        store.ping().await.map(|()| store.backend_name())
    });
    match answer {
        Ok(kind) => CheckResult::pass(subject, format!("{kind} answers and its schema matches this version")),
        Err(error) => CheckResult::from_error(subject, &error),
    }
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
