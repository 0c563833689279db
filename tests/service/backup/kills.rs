//! SIGKILL at random during retention, backup, restore and the deletion of an owner: nothing is lost and nothing dangles.

use super::{Contents, Installation, OWNERS, assert_no_garbage, assert_nothing_dangles, new_database};
use crate::api::job_traces::is_soak;
use crate::api::server_process::ServerConfig;
use crate::cli::run::{espalier, run, wait_for_output};
use espalier::store::backup::ExistingRows;
use espalier_tensor::seeded_rng::SeededRng;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Finished jobs of both owners together.
const JOBS: usize = 60;

fn rounds() -> usize {
    if is_soak() { 20 } else { 3 }
}

/// Runs the command and kills it after a random time below `longest`. Returns whether it was killed before its end.
fn run_and_kill(arguments: &[&str], random: &mut SeededRng, longest: Duration) -> bool {
    let mut child = espalier(arguments).spawn().unwrap();
    let time = Duration::from_micros(random.uniform_below(longest.as_micros() as usize) as u64);
    // The delay is the random input of this test, not a wait for a condition.
    std::thread::sleep(time);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none_or(|code| code == 0), "the command failed by itself: {status}");
    status.code().is_none()
}

/// Time that a command takes, so that the kills hit it.
fn timed(arguments: &[&str]) -> Duration {
    let started = std::time::Instant::now();
    run(arguments).success_stdout();
    started.elapsed()
}

#[test]
fn killed_retention_deletes_only_what_is_not_kept() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = SeededRng::new(11, &["retention"]);
    let mut killed = 0;
    for round in 0..rounds() {
        let installation =
            runtime.block_on(async { Installation::populated(new_database(round % 2 == 1).await, JOBS).await });
        let before = runtime.block_on(Contents::read(&*installation.database));
        let data_dir = installation.data_dir();
        let arguments = [
            "retention",
            "--data-dir",
            data_dir.to_str().unwrap(),
            "--database-url",
            installation.database.url(),
            "--max-finished-jobs",
            "5",
            "--keep-versions",
            "1",
            "--keep-datasets",
            "1ms",
        ];
        for _ in 0..3 {
            killed += usize::from(run_and_kill(&arguments, &mut random, Duration::from_millis(600)));
            runtime.block_on(async {
                assert_nothing_dangles(&*installation.database, &data_dir).await;
                let after = Contents::read(&*installation.database).await;
                for owner in OWNERS {
                    assert!(after.count(owner, "job") >= 5 + 2 && after.count(owner, "dataset") >= 2);
                }
                assert!(after.rows.keys().all(|row| before.rows.contains_key(row)));
            });
        }
        run(&arguments).success_stdout();
        runtime.block_on(async {
            let after = Contents::read(&*installation.database).await;
            for owner in OWNERS {
                // Five finished jobs, a running and a paused one; the datasets of the latter; one version of each of seven names.
                assert_eq!(["job", "dataset", "adapter"].map(|kind| after.count(owner, kind)), [7, 2, 7]);
            }
            assert_nothing_dangles(&*installation.database, &data_dir).await;
            assert_no_garbage(&*installation.database, &data_dir).await;
            installation.database.drop_database().await;
        });
    }
    println!("{killed} of {} runs of retention were killed", 3 * rounds());
    assert!(killed > 0);
}

#[test]
fn killed_backup_is_absent_or_complete() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = SeededRng::new(12, &["backup"]);
    let (mut killed, mut complete) = (0, 0);
    for postgres in [false, true] {
        let source = runtime.block_on(async { Installation::populated(new_database(postgres).await, JOBS).await });
        let before = runtime.block_on(Contents::read(&*source.database));
        let data_dir = source.data_dir();
        let storage = ["--data-dir", data_dir.to_str().unwrap(), "--database-url", source.database.url()];
        let first = source.root.path().join("first");
        let longest = timed(&[&["backup", first.to_str().unwrap()], &storage[..]].concat());
        for round in 0..rounds().div_ceil(2) {
            let target = source.root.path().join(format!("backup-{round}"));
            let arguments = [&["backup", target.to_str().unwrap()], &storage[..]].concat();
            killed += usize::from(run_and_kill(&arguments, &mut random, longest));
            if !target.exists() {
                run(&arguments).success_stdout();
            } else {
                complete += 1;
            }
            runtime.block_on(async {
                let restored = Installation::new(new_database(postgres).await);
                restored.restore(&target, ExistingRows::Refuse).await.unwrap();
                assert_eq!(Contents::read(&*restored.database).await, before);
                assert_nothing_dangles(&*restored.database, &restored.data_dir()).await;
                restored.database.drop_database().await;
                assert_eq!(Contents::read(&*source.database).await, before);
            });
        }
        runtime.block_on(source.database.drop_database());
    }
    println!("{killed} backups were killed, {complete} of them were complete");
    assert!(killed > 0);
}

#[test]
fn killed_restore_leaves_nothing_or_everything() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = SeededRng::new(13, &["restore"]);
    let source = runtime.block_on(async { Installation::populated(new_database(false).await, JOBS).await });
    let expected = runtime.block_on(Contents::read(&*source.database));
    let backup = source.root.path().join("backup");
    runtime.block_on(source.backup(&backup)).unwrap();
    let (mut killed, mut complete) = (0, 0);
    for round in 0..rounds() {
        let target = runtime.block_on(async { Installation::new(new_database(round % 2 == 1).await) });
        let data_dir = target.data_dir();
        let arguments = [
            "restore",
            backup.to_str().unwrap(),
            "--data-dir",
            data_dir.to_str().unwrap(),
            "--database-url",
            target.database.url(),
        ];
        killed += usize::from(run_and_kill(&arguments, &mut random, Duration::from_millis(900)));
        let restored = runtime.block_on(Contents::read(&*target.database));
        match restored.rows.is_empty() {
            true => drop(run(&arguments).success_stdout()),
            false => {
                complete += 1;
                assert_eq!(restored, expected);
                assert!(run(&arguments).err.contains("--replace"));
            }
        }
        runtime.block_on(async {
            assert_eq!(Contents::read(&*target.database).await, expected);
            assert_nothing_dangles(&*target.database, &data_dir).await;
            assert_no_garbage(&*target.database, &data_dir).await;
            target.database.drop_database().await;
        });
    }
    println!("{killed} restores were killed, {complete} were complete");
    assert!(killed > 0);
}

#[test]
fn killed_deletion_of_an_owner_is_finished_and_touches_no_other() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = SeededRng::new(14, &["owners"]);
    let mut interrupted = 0;
    for round in 0..rounds() {
        let installation =
            runtime.block_on(async { Installation::populated(new_database(round % 2 == 1).await, JOBS).await });
        let before = runtime.block_on(Contents::read(&*installation.database));
        let others = |contents: &Contents| -> Vec<(String, Value)> {
            let rows = contents.rows.iter().filter(|(row, _)| row.starts_with(OWNERS[1]));
            rows.map(|(row, value)| (row.clone(), value.clone())).collect()
        };
        // Nobody runs the other owner's jobs meanwhile.
        let mut setup = ServerConfig::new().with_arguments(&["--role", "api"]);
        setup = setup.with_database(installation.database.url().to_string());
        fs::rename(installation.data_dir(), setup.data_dir()).unwrap();
        runtime.block_on(installation.database.advance_clock(Duration::from_secs(7200))).unwrap();
        let app = setup.start();
        let answered = std::thread::scope(|scope| {
            let deletion =
                scope.spawn(|| app.agent().delete(app.url(&format!("/owners/{}", OWNERS[0]))).call().is_ok());
            // The delay is the random input of this test, not a wait for a condition.
            std::thread::sleep(Duration::from_micros(random.uniform_below(600_000) as u64));
            app.signal(9);
            deletion.join().unwrap()
        });
        interrupted += usize::from(!answered);
        let (setup, _) = app.kill();
        runtime.block_on(assert_nothing_dangles(&*installation.database, &setup.data_dir()));
        let app = setup.start();
        let again = app.delete(&format!("/owners/{}", OWNERS[0]));
        assert_eq!(again.status, 200, "{}", again.text());
        drop(app);
        let storage = ["--data-dir", setup.data_dir().to_str().unwrap(), "--database-url", installation.database.url()]
            .map(str::to_string);
        let retention = espalier(&["retention", "--keep-jobs", "forever"]).args(storage).spawn().unwrap();
        wait_for_output(retention).success_stdout();
        runtime.block_on(async {
            let after = Contents::read(&*installation.database).await;
            assert!(["job", "dataset", "adapter"].iter().all(|kind| after.count(OWNERS[0], kind) == 0));
            assert_eq!(others(&after), others(&before));
            assert!(installation.database.find_owner_rows(OWNERS[0]).await.unwrap().is_empty());
            assert_nothing_dangles(&*installation.database, &setup.data_dir()).await;
            assert_no_garbage(&*installation.database, &setup.data_dir()).await;
            installation.database.drop_database().await;
        });
    }
    println!("{interrupted} of {} deletions were interrupted", rounds());
    assert!(interrupted > 0);
}
