//! Deletion of finished jobs, of their events, and of superseded versions of adapters.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{DeletedRows, Reference, RetentionPolicy, Status, Store};
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    finished_job_is_deleted_and_its_adapter_stays,
    unfinished_job_is_not_deleted,
    old_jobs_and_events_are_deleted,
    superseded_versions_are_deleted_unless_a_job_starts_from_them,
    nothing_is_deleted_by_a_policy_that_keeps_everything,
);

const DAY: Duration = Duration::from_secs(24 * 3600);
const KEEP_ALL: RetentionPolicy =
    RetentionPolicy { keep_jobs: None, keep_events: None, keep_versions: None, keep_checkpoints: DAY };

/// Publishes an adapter of this name and returns the job's id.
async fn run_job(store: &dyn Store, digits: &str) -> Uuid {
    let claimed = add_and_claim_job(store).await;
    store.record_metrics(&claimed.lease, &[row(1, "train"), row(2, "train")]).await.unwrap();
    let mut adapter = new_adapter(Some("intents"), digits);
    adapter.job_id = Some(claimed.job.id);
    store.publish(&claimed.lease, adapter, &serde_json::json!({})).await.unwrap();
    claimed.job.id
}

async fn finished_job_is_deleted_and_its_adapter_stays(db: &Database) {
    let (first, second) = (run_job(&**db, "a1").await, run_job(&**db, "a2").await);
    expect_error(db.delete_job(OTHER_OWNER, first).await, "job_not_found");
    db.delete_job(OWNER, second).await.unwrap();
    expect_error(db.job(OWNER, second).await, "job_not_found");
    expect_error(db.delete_job(OWNER, second).await, "job_not_found");
    assert!(db.events(second, 0, 10).await.unwrap().is_empty());
    let adapter = db.adapter(OWNER, &Reference::Name("intents".to_string())).await.unwrap();
    assert_eq!((adapter.description.version, adapter.job_id), (sha256("a2"), None));
    let page = espalier::store::PageRequest { limit: 10, after: Some(second) };
    let older: Vec<Uuid> = db.jobs(OWNER, None, page).await.unwrap().iter().map(|job| job.id).collect();
    assert_eq!(older, [first], "the id of a deleted job stays valid as a cursor");
}

async fn unfinished_job_is_not_deleted(db: &Database) {
    let job = add_job(&**db).await;
    expect_error(db.delete_job(OWNER, job.id).await, "job_active");
    let claimed = claim(&**db).await.unwrap();
    expect_error(db.delete_job(OWNER, job.id).await, "job_active");
    db.fail_job(&claimed.lease, &job_error()).await.unwrap();
    db.delete_job(OWNER, job.id).await.unwrap();
}

async fn old_jobs_and_events_are_deleted(db: &Database) {
    let old = run_job(&**db, "a1").await;
    let unfinished = add_job(&**db).await;
    db.advance_clock(DAY * 2).await.unwrap();
    let new = {
        db.cancel_job(OWNER, unfinished.id).await.unwrap();
        run_job(&**db, "a2").await
    };
    let policy = RetentionPolicy { keep_events: Some(DAY), ..KEEP_ALL };
    let deleted = db.delete_old_rows(&policy).await.unwrap();
    assert_eq!(deleted, DeletedRows { events: 2, ..DeletedRows::default() });
    assert_eq!(status_history(&**db, old).await, ["queued", "running", "succeeded"]);
    let policy = RetentionPolicy { keep_jobs: Some(DAY), ..KEEP_ALL };
    assert_eq!(db.delete_old_rows(&policy).await.unwrap(), DeletedRows { jobs: 1, ..DeletedRows::default() });
    expect_error(db.job(OWNER, old).await, "job_not_found");
    assert_eq!(status(&**db, new).await, Status::Succeeded);
    assert_eq!(status(&**db, unfinished.id).await, Status::Cancelled);
    assert_eq!(db.delete_old_rows(&policy).await.unwrap(), DeletedRows::default());
}

async fn superseded_versions_are_deleted_unless_a_job_starts_from_them(db: &Database) {
    for digits in ["a1", "a2", "a3", "a4"] {
        db.add_adapter(new_adapter(Some("intents"), digits)).await.unwrap();
    }
    db.add_adapter(new_adapter(None, "b1")).await.unwrap();
    db.add_adapter(new_adapter(Some("other"), "a1")).await.unwrap();
    let dataset = add_dataset(&**db).await;
    db.add_job(new_job_from_adapter(dataset.id, "a2"), MAX_QUEUED).await.unwrap();
    let changes = db.adapter_changes();
    let policy = RetentionPolicy { keep_versions: Some(1), ..KEEP_ALL };
    let deleted = db.delete_old_rows(&policy).await.unwrap();
    assert_eq!(deleted.adapters, 2);
    assert_eq!(deleted.unreferenced_versions, [sha256("a3")], "a1 has another name");
    assert!(db.adapter_changes() > changes);
    let versions = db.referenced_adapter_versions().await.unwrap();
    assert_eq!(versions, ["a1", "a2", "a4", "b1"].map(sha256));
    let newest = db.resolve_adapter(OWNER, &Reference::Name("intents".to_string())).await.unwrap();
    assert_eq!(newest.version, sha256("a4"));
}

async fn nothing_is_deleted_by_a_policy_that_keeps_everything(db: &Database) {
    run_job(&**db, "a1").await;
    db.advance_clock(DAY * 300).await.unwrap();
    assert_eq!(db.delete_old_rows(&KEEP_ALL).await.unwrap(), DeletedRows::default());
}
