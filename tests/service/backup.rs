//! Tests of backups: between both databases, beside writers, refused, and of jobs that go on.

mod kills;

use crate::api::job_traces::{JobResult, long_job, uninterrupted_result};
use crate::api::server_process::{ServerConfig, small_job};
use crate::cli::run::run;
use crate::store::helpers::expect_error;
use crate::support::database::Database;
use crate::support::population::{Contents, OWNERS, assert_no_garbage, assert_nothing_dangles, populate};
use crate::support::samples::sha256;
use espalier::store::backup::{self, ExistingRows, RestoreTarget};
use espalier::store::blobs::{BackupSource, DataDir};
use espalier::store::{Reference, Status, Store};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// A database with its data folder.
struct Installation {
    root: TempDir,
    database: Database,
}

impl Installation {
    fn new(database: Database) -> Self {
        Self { root: tempfile::tempdir().unwrap(), database }
    }

    async fn populated(database: Database, count: usize) -> Self {
        let installation = Self::new(database);
        let data_dir = DataDir::open(&installation.data_dir()).unwrap();
        populate(&*installation.database, &data_dir, count).await;
        installation
    }

    fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    async fn backup(&self, target: &Path) -> espalier_core::error::Result<backup::Manifest> {
        backup::create(self.database.url(), &self.data_dir(), None, target).await
    }

    async fn restore(
        &self,
        source: &Path,
        existing_rows: ExistingRows,
    ) -> espalier_core::error::Result<backup::Manifest> {
        let data_dir = self.data_dir();
        backup::restore(
            source,
            RestoreTarget { database_url: self.database.url(), data_dir: &data_dir, objects: None, existing_rows },
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_either_database_is_restored_into_either() {
    for from_postgres in [false, true] {
        let source = Installation::populated(new_database(from_postgres).await, 12).await;
        let target = source.root.path().join("backup");
        let manifest = source.backup(&target).await.unwrap();
        assert!(manifest.damaged.is_empty() && manifest.rows() > 12 * 24, "{manifest:?}");
        for to_postgres in [false, true] {
            let restored = Installation::new(new_database(to_postgres).await);
            restored.restore(&target, ExistingRows::Refuse).await.unwrap();
            assert_eq!(Contents::read(&*restored.database).await, Contents::read(&*source.database).await);
            assert_nothing_dangles(&*restored.database, &restored.data_dir()).await;
            assert_no_garbage(&*restored.database, &restored.data_dir()).await;
            // The jobs that ran when the backup was made can be claimed at once.
            for _ in OWNERS {
                let claimed = crate::store::helpers::claim(&*restored.database).await.unwrap();
                assert_eq!(claimed.job.status, Status::Running);
            }
            assert!(crate::store::helpers::claim(&*restored.database).await.is_none());
            restored.database.drop_database().await;
        }
        source.database.drop_database().await;
    }
}

async fn new_database(postgres: bool) -> Database {
    match postgres {
        true => Database::postgres().await,
        false => Database::sqlite().await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_is_consistent_while_rows_are_added_and_deleted() {
    for postgres in [false, true] {
        let source = Installation::populated(new_database(postgres).await, 6).await;
        let (store, data_dir) = (source.database.store(), Arc::new(DataDir::open(&source.data_dir()).unwrap()));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write_until(Arc::clone(&stop), store, Arc::clone(&data_dir)));
        for round in 0..5 {
            let target = source.root.path().join(format!("backup-{round}"));
            let manifest = source.backup(&target).await.unwrap();
            assert_eq!(manifest.damaged, [] as [String; 0]);
            let restored = Installation::new(new_database(postgres).await);
            restored.restore(&target, ExistingRows::Refuse).await.unwrap();
            assert_nothing_dangles(&*restored.database, &restored.data_dir()).await;
            restored.database.drop_database().await;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.await.unwrap() > 0, "nothing was deleted meanwhile");
        source.database.drop_database().await;
    }
}

/// Adds jobs with datasets and adapters and deletes older ones as the API does. Returns the number of deletions.
async fn write_until(stop: Arc<AtomicBool>, store: Arc<dyn Store>, data_dir: Arc<DataDir>) -> usize {
    let mut deletions = 0;
    while !stop.load(Ordering::Relaxed) {
        for owner in OWNERS {
            for adapter in store.adapters(owner, crate::store::helpers::ALL).await.unwrap().iter().skip(3) {
                if let Ok(Some(version)) = store.delete_adapter(owner, adapter.id).await {
                    data_dir.remove_adapter(&version).unwrap();
                    deletions += 1;
                }
            }
            for dataset in store.datasets(owner, crate::store::helpers::ALL).await.unwrap().iter().skip(3) {
                if let Ok(Some(hash)) = store.delete_dataset(owner, dataset.id).await {
                    data_dir.remove_dataset(&hash).unwrap();
                    deletions += 1;
                }
            }
        }
        populate(&*store, &data_dir, 3).await;
    }
    deletions
}

#[test]
fn no_blob_is_removed_while_a_backup_runs() {
    let root = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(root.path()).unwrap();
    let upload = || {
        let file = data_dir.temp_dir().join("upload");
        fs::write(&file, "text").unwrap();
        data_dir.put_dataset(&file, &sha256("a1")).unwrap()
    };
    let path = upload();
    let (first, second) = (BackupSource::lock(root.path()).unwrap(), BackupSource::lock(root.path()).unwrap());
    for backup in [first, second] {
        data_dir.remove_dataset(&sha256("a1")).unwrap();
        assert!(path.exists());
        drop(backup);
    }
    data_dir.remove_dataset(&sha256("a1")).unwrap();
    assert!(!path.exists());
    expect_error(BackupSource::lock(&root.path().join("datasets")), "data_folder_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_backups_and_targets_are_refused_and_change_nothing() {
    let source = Installation::populated(Database::sqlite().await, 3).await;
    let target = source.root.path().join("backup");
    source.backup(&target).await.unwrap();
    expect_error(source.backup(&target).await, "backup_exists");
    let before = Contents::read(&*source.database).await;
    expect_error(source.restore(&target, ExistingRows::Refuse).await, "target_not_empty");
    assert_eq!(Contents::read(&*source.database).await, before);

    let empty = Installation::new(Database::sqlite().await);
    let server = DataDir::open(&empty.data_dir()).unwrap();
    expect_error(empty.restore(&target, ExistingRows::Refuse).await, "data_folder_in_use");
    drop(server);
    expect_error(empty.restore(&empty.data_dir(), ExistingRows::Refuse).await, "backup_incomplete");
    expect_error(empty.restore(Path::new("/nowhere"), ExistingRows::Refuse).await, "backup_incomplete");
    let dataset = fs::read_dir(target.join("datasets")).unwrap().next().unwrap().unwrap().path();
    let content = fs::read(&dataset).unwrap();
    fs::write(&dataset, "other").unwrap();
    let error = expect_error(empty.restore(&target, ExistingRows::Refuse).await, "backup_damaged");
    assert!(error.to_string().contains(dataset.file_name().unwrap().to_str().unwrap()), "{error}");
    fs::remove_file(&dataset).unwrap();
    expect_error(empty.restore(&target, ExistingRows::Refuse).await, "backup_damaged");
    fs::write(&dataset, content).unwrap();
    let manifest = fs::read_to_string(target.join("manifest.json")).unwrap();
    for (from, to, code) in [
        ("\"schema_version\": ", "\"schema_version\": 9", "backup_too_new"),
        ("\"format\": ", "\"format\": 9", "backup_too_new"),
        ("{", "[", "backup_damaged"),
    ] {
        fs::write(target.join("manifest.json"), manifest.replacen(from, to, 1)).unwrap();
        expect_error(empty.restore(&target, ExistingRows::Refuse).await, code);
    }
    assert!(Contents::read(&*empty.database).await.rows.is_empty());
    fs::write(target.join("manifest.json"), manifest).unwrap();
    empty.restore(&target, ExistingRows::Refuse).await.unwrap();
    crate::store::helpers::add_dataset(&*empty.database).await;
    empty.restore(&target, ExistingRows::Replace).await.unwrap();
    assert_eq!(Contents::read(&*empty.database).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_file_is_reported_and_the_rest_is_saved() {
    let source = Installation::populated(Database::sqlite().await, 3).await;
    let adapter = source.database.adapter(OWNERS[0], &Reference::Name("name-1".to_string())).await.unwrap();
    fs::remove_dir_all(source.data_dir().join("adapters").join(&adapter.description.version)).unwrap();
    let target = source.root.path().join("backup");
    let manifest = source.backup(&target).await.unwrap();
    assert_eq!(manifest.damaged, [format!("adapters/{}", adapter.description.version)]);
    let restored = Installation::new(Database::sqlite().await);
    restored.restore(&target, ExistingRows::Refuse).await.unwrap();
    assert_eq!(Contents::read(&*restored.database).await, Contents::read(&*source.database).await);
}

#[test]
fn restored_job_goes_on_from_its_checkpoint_with_the_same_result() {
    let (expected, _) = uninterrupted_result();
    let app = ServerConfig::new().with_arguments(&["--checkpoint-interval", "50ms", "--log-level", "debug"]).start();
    let quick = app.train_to_success(&small_job(30, json!({"name": "quick", "hyperparameters": {"epochs": 1}})));
    let id = app.submit_job(&long_job());
    for _ in 0..3 {
        app.wait_for_log("checkpoint saved");
    }
    let (data, backup) = (app.setup.data_dir(), app.setup.folder.path().join("backup"));
    let (data, backup) = (data.to_str().unwrap(), backup.to_str().unwrap());
    let manifest: Value =
        serde_json::from_str(&run(&["backup", backup, "--data-dir", data, "--json"]).success_stdout()).unwrap();
    assert_eq!(manifest["damaged"], json!([]));
    let answer = app.post("/predict?adapter=quick", &json!({"inputs": ["why"]})).json();
    assert_eq!(&JobResult::wait_for_result(&app, &id), expected, "the backup does not disturb the job");

    let restored = ServerConfig::new();
    let target = restored.data_dir();
    let shown = run(&["restore", backup, "--data-dir", target.to_str().unwrap()]).success_stdout();
    assert!(shown.starts_with("restored "), "{shown}");
    let restored = restored.start();
    restored.wait_for_log_since_start("training resumes");
    assert_eq!(&JobResult::wait_for_result(&restored, &id), expected);
    assert_eq!(restored.get(&format!("/jobs/{}", quick["id"].as_str().unwrap())).json(), quick);
    assert_eq!(restored.post("/predict?adapter=quick", &json!({"inputs": ["why"]})).json(), answer);
    let refused = run(&["restore", backup, "--data-dir", data]);
    assert!(refused.code == 1 && refused.err.contains("stop it first"), "{}", refused.err);
}
