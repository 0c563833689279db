//! Whether the data folder can be written to, and the database answers.

use super::CheckResult;
use crate::cli::output::format_bytes;
use crate::config::Secret;
use crate::store;
use std::path::Path;

/// A checkpoint, a dataset and an adapter fit in.
const MIN_FREE_BYTES: u64 = 256 << 20;
const RECOMMENDED_FREE_BYTES: u64 = 2 << 30;

pub fn check_data_dir(data_dir: &Path) -> Vec<CheckResult> {
    let subject = "data folder";
    let displayed_path = data_dir.display();
    let exists = data_dir.is_dir();
    // A folder that is not there yet will be made in the nearest one that is.
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_path_buf());
    let Some(existing_parent) = absolute.ancestors().find(|place| place.exists()) else {
        return vec![CheckResult::fail(
            subject,
            format!("{displayed_path} cannot be found"),
            "name a folder with --data-dir",
        )];
    };
    let mut findings = vec![match tempfile::tempfile_in(existing_parent) {
        Ok(_) if exists => CheckResult::pass(subject, format!("{displayed_path} can be written to")),
        Ok(_) => CheckResult::pass(subject, format!("{displayed_path} is not there: the first start makes it")),
        Err(error) => CheckResult::fail(
            subject,
            format!("{} cannot be written to: {error}", existing_parent.display()),
            "change its owner or its permissions, or name another folder with --data-dir",
        ),
    }];
    if let Ok(filesystem) = rustix::fs::statvfs(existing_parent) {
        findings.push(check_disk_space(filesystem.f_bavail.saturating_mul(filesystem.f_frsize)));
    }
    findings
}

fn check_disk_space(free_bytes: u64) -> CheckResult {
    let (subject, detail) = ("disk", format!("{} free for the data folder", format_bytes(free_bytes)));
    let advice = "make room, or name a folder on another disk with --data-dir";
    match free_bytes {
        0..MIN_FREE_BYTES => CheckResult::fail(subject, detail, advice),
        MIN_FREE_BYTES..RECOMMENDED_FREE_BYTES => CheckResult::warn(subject, detail, advice),
        _ => CheckResult::pass(subject, detail),
    }
}

pub fn check_database(url: &Secret) -> CheckResult {
    let subject = "database";
    if let Some(file) = url.expose().strip_prefix("sqlite://")
        && !Path::new(file).exists()
    {
        return CheckResult::pass(subject, "SQLite: the first start makes its file");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CheckResult::fail(subject, format!("cannot be asked: {error}"), "free some threads"),
    };
    let answer = runtime.block_on(async {
        let store = store::connect(url.expose()).await?;
        store.ping().await.map(|()| store.backend_name())
    });
    match answer {
        Ok(kind) => CheckResult::pass(subject, format!("{kind} answers, and its tables are of this version")),
        Err(error) => CheckResult::from_error(subject, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    fn missing_data_dir_is_checked_at_its_nearest_parent() {
        let place = tempfile::tempdir().unwrap();
        let findings = check_data_dir(&place.path().join("a/b"));
        assert_eq!(findings[0].status, CheckStatus::Pass);
        assert!(findings[0].detail.contains("first start makes it"));
        assert!(!place.path().join("a").exists(), "doctor changes nothing");
    }

    #[test]
    fn low_disk_space_is_reported() {
        let verdicts = [1 << 20, 1 << 30, 1 << 40].map(|free| check_disk_space(free).status);
        assert_eq!(verdicts, [CheckStatus::Fail, CheckStatus::Warn, CheckStatus::Pass]);
    }
}
