//! Deletion of everything that belongs to an owner.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::blobs::{BlobStore, DataDir};
use espalier::store::{Dataset, NewDataset, OwnerDeletion, PageRequest, Reference, Status, Store, owner_deletion};
use sqlx::{Connection, PgConnection, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

on_both_databases!(
    everything_of_an_owner_is_deleted_and_shared_files_stay,
    nothing_can_be_added_during_a_deletion,
    running_job_is_cancelled_by_its_worker_before_the_deletion,
    jobs_without_a_worker_are_cancelled_at_once,
    interrupted_deletion_is_finished_by_retention,
    deletion_covers_every_table_with_owners,
);

struct Fixture {
    _root: TempDir,
    data_dir: Arc<DataDir>,
    blobs: Arc<BlobStore>,
    store: Arc<dyn Store>,
}

impl Fixture {
    fn new(db: &Database) -> Self {
        let root = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(&root.path().join("data")).unwrap());
        let blobs = Arc::new(BlobStore::new(Arc::clone(&data_dir), db.store(), None, 0));
        Self { _root: root, data_dir, blobs, store: db.store() }
    }

    async fn add_dataset(&self, owner: &str, digits: &str) -> Dataset {
        let file = self.data_dir.temp_dir().join("upload");
        std::fs::write(&file, digits).unwrap();
        if !self.data_dir.dataset_path(&sha256(digits)).exists() {
            self.data_dir.put_dataset(&file, &sha256(digits)).unwrap();
        }
        let dataset = NewDataset { owner: owner.to_string(), ..new_dataset(digits) };
        self.store.add_dataset(dataset).await.unwrap()
    }

    async fn add_adapter(&self, owner: &str, digits: &str) {
        let folder = self.data_dir.adapters_dir().join(sha256(digits));
        std::fs::create_dir_all(folder).unwrap();
        let adapter = espalier::store::NewAdapter { owner: owner.to_string(), ..new_adapter(Some("intents"), digits) };
        self.store.add_adapter(adapter).await.unwrap();
    }

    async fn delete(&self) -> OwnerDeletion {
        owner_deletion::delete(&self.store, &self.blobs, OWNER).await.unwrap()
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn everything_of_an_owner_is_deleted_and_shared_files_stay(db: &Database) {
    let fixture = Fixture::new(db);
    let (mine, shared) = (fixture.add_dataset(OWNER, "d1").await, fixture.add_dataset(OWNER, "d2").await);
    let others = fixture.add_dataset(OTHER_OWNER, "d2").await;
    for digits in ["a1", "a2", "a3"] {
        fixture.add_adapter(OWNER, digits).await;
    }
    fixture.add_adapter(OTHER_OWNER, "a2").await;
    let job = db.add_job(new_job(mine.id), MAX_QUEUED).await.unwrap();
    let deleted = db.add_job(new_job(shared.id), MAX_QUEUED).await.unwrap();
    db.cancel_job(OWNER, deleted.id).await.unwrap();
    db.delete_job(OWNER, deleted.id).await.unwrap();
    std::fs::create_dir(fixture.data_dir.job_checkpoint_dir(job.id)).unwrap();
    std::fs::write(fixture.data_dir.feature_cache_dir().join("key"), "features").unwrap();

    let preview = owner_deletion::preview(&*fixture.store, OWNER).await.unwrap();
    let receipt = fixture.delete().await;
    assert_eq!((preview.dry_run, receipt.dry_run), (true, false));
    assert_eq!((&preview.cancelled_jobs, &receipt.cancelled_jobs), (&vec![job.id], &vec![job.id]));
    assert_eq!((&receipt.deleted.jobs, receipt.bytes), (&vec![job.id], preview.bytes));
    assert_eq!(receipt.bytes, new_dataset("d1").bytes + 2 * description("a1").bytes);
    let shared_files = |receipt: &OwnerDeletion| {
        let files = receipt.deleted.datasets.iter().chain(&receipt.deleted.adapters);
        files.map(|file| (file.sha256.clone(), file.shared)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(shared_files(&receipt), shared_files(&preview));
    let expected = [("d1", false), ("d2", true), ("a1", false), ("a2", true), ("a3", false)];
    assert_eq!(shared_files(&receipt), expected.map(|(digits, shared)| (sha256(digits), shared)).into());
    // The cancellation adds an event.
    let rows = [
        ("adapter_names", 1),
        ("adapters", 3),
        ("datasets", 2),
        ("events", 2),
        ("job_turns", 1),
        ("jobs", 1),
        ("tombstones", 1),
    ];
    assert_eq!(receipt.deleted.rows, rows.map(|(table, rows)| (table.to_string(), rows)).into());

    let data_dir = &fixture.data_dir;
    assert_eq!(names(data_dir.dataset_path("").as_path()), [sha256("d2")].into());
    assert_eq!(names(&data_dir.adapters_dir()), [sha256("a2")].into());
    assert!(!data_dir.job_checkpoint_dir(job.id).exists() && names(&data_dir.feature_cache_dir()).is_empty());
    assert!(db.find_owner_rows(OWNER).await.unwrap().is_empty());
    assert_eq!(db.dataset(OTHER_OWNER, others.id).await.unwrap(), others);
    db.adapter(OTHER_OWNER, &Reference::Name("intents".to_string())).await.unwrap();
    let again = fixture.delete().await;
    assert!(again.deleted.is_empty() && again.bytes == 0);
    fixture.add_dataset(OWNER, "d1").await;
}

async fn nothing_can_be_added_during_a_deletion(db: &Database) {
    let dataset = add_dataset(&**db).await;
    let failed = add_and_claim_job(&**db).await;
    db.fail_job(&failed.lease, &job_error()).await.unwrap();
    db.begin_owner_deletion(OWNER).await.unwrap();
    expect_error(db.add_dataset(new_dataset("da7a")).await, "owner_being_deleted");
    expect_error(db.add_dataset(new_dataset("d2")).await, "owner_being_deleted");
    expect_error(db.add_job(new_job(dataset.id), MAX_QUEUED).await, "owner_being_deleted");
    expect_error(db.retry_job(OWNER, failed.job.id, MAX_QUEUED).await, "owner_being_deleted");
    expect_error(db.add_adapter(new_adapter(None, "a1")).await, "owner_being_deleted");
    db.add_dataset(NewDataset { owner: OTHER_OWNER.to_string(), ..new_dataset("d2") }).await.unwrap();
    db.delete_owner_rows(OWNER).await.unwrap();
    db.finish_owner_deletion(OWNER).await.unwrap();
    add_dataset(&**db).await;
}

async fn running_job_is_cancelled_by_its_worker_before_the_deletion(db: &Database) {
    let fixture = Fixture::new(db);
    let claimed = add_and_claim_job(&**db).await;
    let worker = async {
        while db.heartbeat(&claimed.lease, LEASE, None).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        expect_error(db.delete_owner_rows(OWNER).await, "owner_jobs_running");
        let cancel = espalier::store::RequestedAction::Cancel;
        db.complete_requested_action(&claimed.lease, cancel).await.unwrap();
    };
    let (receipt, ()) = tokio::join!(fixture.delete(), worker);
    assert_eq!(receipt.cancelled_jobs, [claimed.job.id]);
    assert!(db.find_owner_rows(OWNER).await.unwrap().is_empty());
}

async fn jobs_without_a_worker_are_cancelled_at_once(db: &Database) {
    let dead = add_and_claim_job(&**db).await.job.id;
    let (paused, queued) = (add_job(&**db).await.id, add_job(&**db).await.id);
    db.pause_job(OWNER, paused).await.unwrap();
    expire_leases(&**db).await;
    let mut cancelled = db.cancel_owner_jobs(OWNER).await.unwrap();
    cancelled.sort_unstable();
    assert_eq!(cancelled, [dead, paused, queued]);
    for id in cancelled {
        assert_eq!(status(&**db, id).await, Status::Cancelled);
    }
    assert!(db.cancel_owner_jobs(OWNER).await.unwrap().is_empty());
}

async fn interrupted_deletion_is_finished_by_retention(db: &Database) {
    let fixture = Fixture::new(db);
    let dataset = fixture.add_dataset(OWNER, "d1").await;
    db.add_job(new_job(dataset.id), MAX_QUEUED).await.unwrap();
    db.begin_owner_deletion(OWNER).await.unwrap();
    let policy = KEEP_ALL;
    espalier::store::retention::apply(&fixture.store, &fixture.blobs, &policy).await.unwrap();
    assert!(!db.find_owner_rows(OWNER).await.unwrap().is_empty(), "another process may be at it");
    db.advance_clock(Duration::from_secs(3600)).await.unwrap();
    espalier::store::retention::apply(&fixture.store, &fixture.blobs, &policy).await.unwrap();
    assert!(db.find_owner_rows(OWNER).await.unwrap().is_empty());
    assert!(names(fixture.data_dir.dataset_path("").as_path()).is_empty());
    let page = PageRequest { limit: 10, after: None };
    assert!(db.jobs(OWNER, None, page).await.unwrap().is_empty());
    fixture.add_dataset(OWNER, "d1").await;
}

async fn deletion_covers_every_table_with_owners(db: &Database) {
    let tables: BTreeSet<String> = match db.backend_name() {
        "sqlite" => {
            let sql = "select tables.name from sqlite_schema as tables, pragma_table_info(tables.name) as columns
                       where tables.type = 'table' and columns.name = 'owner'";
            let mut connection = SqliteConnection::connect(db.url()).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        }
        _ => {
            let sql = "select table_name::text from information_schema.columns
                       where column_name = 'owner' and table_schema = 'public'";
            let mut connection = PgConnection::connect(db.url()).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        }
    }
    .into_iter()
    .collect();
    // The audit log is kept, and has its own retention.
    let covered = [
        "adapter_names",
        "adapters",
        "api_keys",
        "audit_log",
        "datasets",
        "idempotency_keys",
        "job_turns",
        "jobs",
        "owner_deletions",
        "tombstones",
        "usage_daily",
        "webhooks",
    ];
    let covered: BTreeSet<String> = covered.map(str::to_string).into();
    assert_eq!(tables, covered, "a new table belongs into OTHER_TABLES of src/store/sql/owner_deletion.rs, and here");
}
