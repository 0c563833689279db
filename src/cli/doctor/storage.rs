//! Whether the data folder can be written to, and the database answers.

use super::Finding;
use crate::cli::output::size;
use crate::config::Secret;
use crate::store;
use std::path::Path;

/// A checkpoint, a dataset and an adapter fit in.
const LEAST: u64 = 256 << 20;
const COMFORTABLE: u64 = 2 << 30;

pub fn folder(data_dir: &Path) -> Vec<Finding> {
    let subject = "data folder";
    let shown = data_dir.display();
    let exists = data_dir.is_dir();
    // A folder that is not there yet will be made in the nearest one that is.
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_path_buf());
    let Some(place) = absolute.ancestors().find(|place| place.exists()) else {
        return vec![Finding::bad(subject, format!("{shown} cannot be found"), "name a folder with --data-dir")];
    };
    let mut findings = vec![match tempfile::tempfile_in(place) {
        Ok(_) if exists => Finding::good(subject, format!("{shown} can be written to")),
        Ok(_) => Finding::good(subject, format!("{shown} is not there: the first start makes it")),
        Err(error) => Finding::bad(
            subject,
            format!("{} cannot be written to: {error}", place.display()),
            "change its owner or its permissions, or name another folder with --data-dir",
        ),
    }];
    if let Ok(system) = rustix::fs::statvfs(place) {
        findings.push(space(system.f_bavail.saturating_mul(system.f_frsize)));
    }
    findings
}

fn space(free: u64) -> Finding {
    let (subject, detail) = ("disk", format!("{} free for the data folder", size(free)));
    let advice = "make room, or name a folder on another disk with --data-dir";
    match free {
        0..LEAST => Finding::bad(subject, detail, advice),
        LEAST..COMFORTABLE => Finding::doubtful(subject, detail, advice),
        _ => Finding::good(subject, detail),
    }
}

pub fn database(url: &Secret) -> Finding {
    let subject = "database";
    if let Some(file) = url.expose().strip_prefix("sqlite://")
        && !Path::new(file).exists()
    {
        return Finding::good(subject, "SQLite: the first start makes its file");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Finding::bad(subject, format!("cannot be asked: {error}"), "free some threads"),
    };
    let asked = runtime.block_on(async {
        let store = store::connect(url.expose()).await?;
        store.ping().await.map(|()| store.kind())
    });
    match asked {
        Ok(kind) => Finding::good(subject, format!("{kind} answers, and its tables are of this version")),
        Err(error) => Finding::failed(subject, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_where_it_would_be() {
        let place = tempfile::tempdir().unwrap();
        let findings = folder(&place.path().join("a/b"));
        assert_eq!(findings[0].verdict, Verdict::Good);
        assert!(findings[0].detail.contains("first start makes it"));
        assert!(!place.path().join("a").exists(), "doctor changes nothing");
    }

    #[test]
    fn too_little_room_is_said_with_what_to_do() {
        let verdicts = [1 << 20, 1 << 30, 1 << 40].map(|free| space(free).verdict);
        assert_eq!(verdicts, [Verdict::Bad, Verdict::Doubtful, Verdict::Good]);
    }
}
