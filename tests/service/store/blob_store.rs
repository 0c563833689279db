//! Blobs in object storage: reservations, garbage collection and the cache.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::blobs::{BlobStore, DataDir, GcAction, LiveBlobs, ObjectStorage};
use espalier::store::{BlobKind, NewDataset, Store};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

on_both_databases!(
    reserved_and_referenced_blobs_are_not_deleted,
    a_blob_that_is_being_deleted_cannot_be_reserved,
    all_blobs_can_be_reserved,
    garbage_collection_removes_objects_without_a_row,
    concurrent_uploads_and_deletions_lose_nothing,
    the_cache_stays_within_its_limit,
);

const HOUR: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(60);
const UNLIMITED: u64 = u64::MAX;

/// A host: its data folder, and a bucket that it may share.
struct Host {
    root: TempDir,
    blobs: Arc<BlobStore>,
}

impl Host {
    fn new(store: Arc<dyn Store>, bucket: &Path, cache_bytes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(&root.path().join("data")).unwrap());
        let objects = ObjectStorage::open(&format!("file://{}", bucket.display())).unwrap();
        Self { root, blobs: Arc::new(BlobStore::new(data_dir, store, Some(objects), cache_bytes)) }
    }

    fn upload(&self, content: &str) -> (PathBuf, String) {
        let file = self.blobs.data_dir().temp_dir().join(uuid::Uuid::now_v7().to_string());
        fs::write(&file, content).unwrap();
        (file, hex::encode(Sha256::digest(content)))
    }

    /// Adds a dataset with its row.
    async fn add_dataset(&self, store: &dyn Store, content: &str) -> String {
        let (file, hash) = self.upload(content);
        let reservation = self.blobs.put_dataset(file, &hash).await.unwrap();
        store.add_dataset(NewDataset { hash: hash.clone(), ..new_dataset("da") }).await.unwrap();
        reservation.release().await;
        hash
    }

    async fn read(&self, hash: &str) -> Option<String> {
        fs::read_to_string(self.blobs.dataset(hash).await.unwrap()).ok()
    }
}

async fn reserved_and_referenced_blobs_are_not_deleted(db: &Database) {
    let begin = |name: String| async move { db.begin_blob_deletion(BlobKind::Dataset, &name, TIMEOUT).await.unwrap() };
    let (one, other) = (
        db.reserve_blob(BlobKind::Dataset, "a", HOUR).await.unwrap(),
        db.reserve_blob(BlobKind::Dataset, "a", HOUR).await.unwrap(),
    );
    assert!(!begin("a".to_string()).await);
    db.release_blob(one.unwrap()).await.unwrap();
    assert!(!begin("a".to_string()).await, "the other reservation holds");
    db.release_blob(other.unwrap()).await.unwrap();
    assert!(db.begin_blob_deletion(BlobKind::Adapter, "a", TIMEOUT).await.unwrap(), "another kind");
    assert!(begin("a".to_string()).await);
    assert!(!begin("a".to_string()).await, "another process deletes it");
    db.finish_blob_deletion(BlobKind::Dataset, "a").await.unwrap();
    let dataset = add_dataset(&**db).await;
    assert!(!begin(dataset.hash.clone()).await, "a row refers to it");
    assert!(db.reserve_blob(BlobKind::Dataset, "b", HOUR).await.unwrap().is_some());
    db.advance_clock(HOUR + Duration::from_secs(1)).await.unwrap();
    assert!(begin("b".to_string()).await, "the reservation is over");
    assert_eq!(db.delete_expired_reservations().await.unwrap(), 2, "one of b, and the deletion of the adapter a");
}

async fn a_blob_that_is_being_deleted_cannot_be_reserved(db: &Database) {
    assert!(db.begin_blob_deletion(BlobKind::Adapter, "a", TIMEOUT).await.unwrap());
    assert_eq!(db.reserve_blob(BlobKind::Adapter, "a", HOUR).await.unwrap(), None);
    db.finish_blob_deletion(BlobKind::Adapter, "a").await.unwrap();
    assert!(db.reserve_blob(BlobKind::Adapter, "a", HOUR).await.unwrap().is_some());
    // A deletion that was interrupted.
    assert!(db.begin_blob_deletion(BlobKind::Adapter, "b", TIMEOUT).await.unwrap());
    db.advance_clock(TIMEOUT + Duration::from_secs(1)).await.unwrap();
    assert!(db.reserve_blob(BlobKind::Adapter, "b", HOUR).await.unwrap().is_some());
}

async fn all_blobs_can_be_reserved(db: &Database) {
    let reservation = db.reserve_all_blobs(HOUR).await.unwrap();
    assert!(!db.begin_blob_deletion(BlobKind::Dataset, "a", TIMEOUT).await.unwrap());
    assert!(db.reserve_blob(BlobKind::Dataset, "a", Duration::from_secs(1)).await.unwrap().is_some());
    db.release_blob(reservation).await.unwrap();
    assert!(!db.begin_blob_deletion(BlobKind::Dataset, "a", TIMEOUT).await.unwrap(), "its own reservation");
    assert!(db.begin_blob_deletion(BlobKind::Dataset, "b", TIMEOUT).await.unwrap());
}

async fn garbage_collection_removes_objects_without_a_row(db: &Database) {
    let bucket = tempfile::tempdir().unwrap();
    let host = Host::new(db.store(), bucket.path(), UNLIMITED);
    let kept = host.add_dataset(&**db, "kept").await;
    // An upload whose row was never added.
    let (file, orphan) = host.upload("orphan");
    let reservation = host.blobs.put_dataset(file, &orphan).await.unwrap();
    fs::write(bucket.path().join("datasets/notes"), "not ours").unwrap();
    let live = Arc::new(LiveBlobs { dataset_hashes: [kept.clone()].into(), ..LiveBlobs::default() });
    let collect = |action| host.blobs.collect_garbage(Arc::clone(&live), HOUR, action);
    assert_eq!(collect(GcAction::Remove).await.unwrap().datasets, 0, "it is reserved");
    drop(reservation);
    db.advance_clock(2 * HOUR).await.unwrap();
    assert_eq!(collect(GcAction::Report).await.unwrap().datasets, 1);
    let report = collect(GcAction::Remove).await.unwrap();
    assert_eq!((report.datasets, report.bytes), (1, 6));
    let other = Host::new(db.store(), bucket.path(), UNLIMITED);
    assert_eq!((other.read(&kept).await, other.read(&orphan).await), (Some("kept".to_string()), None));
    assert!(bucket.path().join("datasets/notes").exists());
}

async fn concurrent_uploads_and_deletions_lose_nothing(db: &Database) {
    let bucket = tempfile::tempdir().unwrap();
    let hosts = [0, 1].map(|_| Host::new(db.store(), bucket.path(), UNLIMITED));
    for _ in 0..10 {
        // A host deletes the dataset while the other one adds it again.
        let hash = hosts[0].add_dataset(&**db, "content").await;
        let id = db.datasets(OWNER, ALL).await.unwrap()[0].id;
        let delete = async {
            if let Some(hash) = db.delete_dataset(OWNER, id).await.unwrap() {
                hosts[0].blobs.remove_dataset(&hash).await.unwrap();
            }
        };
        tokio::join!(delete, hosts[1].add_dataset(&**db, "content"));
        let has_row = !db.datasets(OWNER, ALL).await.unwrap().is_empty();
        let reader = Host::new(db.store(), bucket.path(), UNLIMITED);
        assert!(!has_row || reader.read(&hash).await.is_some(), "a row without its blob");
        for dataset in db.datasets(OWNER, ALL).await.unwrap() {
            if let Some(hash) = db.delete_dataset(OWNER, dataset.id).await.unwrap() {
                hosts[1].blobs.remove_dataset(&hash).await.unwrap();
            }
        }
    }
}

async fn the_cache_stays_within_its_limit(db: &Database) {
    let bucket = tempfile::tempdir().unwrap();
    let writer = Host::new(db.store(), bucket.path(), UNLIMITED);
    let mut hashes = Vec::new();
    for number in 0..6 {
        hashes.push(writer.add_dataset(&**db, &format!("{number}").repeat(100)).await);
    }
    let reader = Host::new(db.store(), bucket.path(), 250);
    let folder = reader.root.path().join("data/datasets");
    for hash in &hashes {
        assert!(reader.read(hash).await.is_some());
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 6, "blobs in use are not evicted");
    for (hours, hash) in (1..).zip(&hashes) {
        fs::File::open(folder.join(hash)).unwrap().set_modified(SystemTime::now() - HOUR * hours).unwrap();
    }
    // The next download evicts the least recently used.
    let next = writer.add_dataset(&**db, &"n".repeat(100)).await;
    assert!(reader.read(&next).await.is_some());
    let mut left: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort_unstable();
    let mut expected = vec![hashes[0].clone(), next];
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert!(reader.read(&hashes[5]).await.is_some(), "an evicted blob is downloaded again");
}
