//! Deletion of finished jobs, of their events, and of superseded versions of adapters.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{DeletedKind, DeletedRows, NewDataset, PageRequest, Reference, RetentionPolicy, Status, Store};
use espalier_core::training::MetricsRow;
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    finished_job_is_deleted_and_its_adapter_stays,
    unfinished_job_is_not_deleted,
    old_jobs_and_events_are_deleted,
    metrics_are_deleted_in_small_transactions_and_a_retry_has_new_ones,
    oldest_jobs_beyond_the_maximum_of_an_owner_are_deleted,
    unused_datasets_are_deleted_unless_an_unfinished_job_uses_them,
    superseded_versions_are_deleted_unless_a_job_starts_from_them,
    versions_are_deleted_some_time_after_they_are_superseded,
    dry_run_finds_what_is_deleted_then,
    deleted_ids_are_cursors_for_a_month,
    space_of_deleted_rows_is_reclaimed,
    nothing_is_deleted_by_a_policy_that_keeps_everything,
);

const DAY: Duration = Duration::from_secs(24 * 3600);
/// One row with this id, without a file.
fn one(id: Uuid) -> DeletedKind {
    DeletedKind { count: 1, bytes: 0, ids: vec![id] }
}

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
    let page = PageRequest { limit: 10, after: Some(second) };
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
    assert_eq!(db.delete_old_rows(&policy).await.unwrap(), DeletedRows { jobs: one(old), ..DeletedRows::default() });
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
    assert_eq!((deleted.adapters.count, deleted.adapters.bytes), (2, description("a3").bytes), "a1 has another name");
    assert_eq!(deleted.unreferenced_versions, [sha256("a3")]);
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

async fn metrics_are_deleted_in_small_transactions_and_a_retry_has_new_ones(db: &Database) {
    let claimed = add_and_claim_job(&**db).await;
    let rows: Vec<MetricsRow> = (1..=2500).map(|step| row(step, "train")).collect();
    db.record_metrics(&claimed.lease, &rows).await.unwrap();
    db.fail_job(&claimed.lease, &job_error()).await.unwrap();
    db.advance_clock(DAY * 2).await.unwrap();
    let policy = RetentionPolicy { keep_events: Some(DAY), ..KEEP_ALL };
    assert_eq!(db.find_old_rows(&policy).await.unwrap().events, 2500);
    assert_eq!(db.delete_old_rows(&policy).await.unwrap().events, 2500);
    assert_eq!(db.delete_old_rows(&policy).await.unwrap().events, 0);
    let id = claimed.job.id;
    assert_eq!(status_history(&**db, id).await, ["queued", "running", "failed"]);
    db.retry_job(OWNER, id, MAX_QUEUED).await.unwrap();
    let retried = claim(&**db).await.unwrap();
    db.record_metrics(&retried.lease, &rows[..3]).await.unwrap();
    db.fail_job(&retried.lease, &job_error()).await.unwrap();
    assert_eq!(db.delete_old_rows(&policy).await.unwrap().events, 0, "they are new");
    db.advance_clock(DAY * 2).await.unwrap();
    assert_eq!(db.delete_old_rows(&policy).await.unwrap().events, 3);
    db.delete_job(OWNER, id).await.unwrap();
}

async fn oldest_jobs_beyond_the_maximum_of_an_owner_are_deleted(db: &Database) {
    let mut ids = Vec::new();
    for digits in ["a1", "a2", "a3"] {
        ids.push(run_job(&**db, digits).await);
        db.advance_clock(Duration::from_secs(1)).await.unwrap();
    }
    let other_dataset = NewDataset { owner: OTHER_OWNER.to_string(), ..new_dataset("da7a") };
    let dataset = db.add_dataset(other_dataset).await.unwrap();
    let other_job = espalier::store::NewJob { owner: OTHER_OWNER.to_string(), ..new_job(dataset.id) };
    let other = db.add_job(other_job, MAX_QUEUED).await.unwrap();
    db.cancel_job(OTHER_OWNER, other.id).await.unwrap();
    let unfinished = add_job(&**db).await;
    let policy = RetentionPolicy { max_finished_jobs: Some(2), ..KEEP_ALL };
    assert_eq!(db.delete_old_rows(&policy).await.unwrap().jobs, one(ids[0]));
    let policy = RetentionPolicy { max_finished_jobs: Some(0), keep_jobs: Some(DAY), ..KEEP_ALL };
    assert_eq!(db.delete_old_rows(&policy).await.unwrap().jobs.count, 3);
    assert_eq!(db.jobs(OWNER, None, ALL).await.unwrap()[0].id, unfinished.id);
    expect_error(db.job(OTHER_OWNER, other.id).await, "job_not_found");
}

async fn unused_datasets_are_deleted_unless_an_unfinished_job_uses_them(db: &Database) {
    let bytes = new_dataset("d1").bytes;
    let used_again = db.add_dataset(new_dataset("d1")).await.unwrap();
    let unused = db.add_dataset(new_dataset("d2")).await.unwrap();
    let with_job = db.add_dataset(new_dataset("d3")).await.unwrap();
    let with_validation = db.add_dataset(new_dataset("d4")).await.unwrap();
    let other = NewDataset { owner: OTHER_OWNER.to_string(), ..new_dataset("d1") };
    let other = db.add_dataset(other).await.unwrap();
    let mut job = new_job(with_job.id);
    job.validation_dataset_id = Some(with_validation.id);
    db.add_job(job, MAX_QUEUED).await.unwrap();
    let finished_use = db.add_dataset(new_dataset("d5")).await.unwrap();
    db.advance_clock(DAY * 2).await.unwrap();
    let finished = db.add_job(new_job(finished_use.id), MAX_QUEUED).await.unwrap();
    db.cancel_job(OWNER, finished.id).await.unwrap();
    db.add_dataset(new_dataset("d1")).await.unwrap();
    let policy = RetentionPolicy { keep_datasets: Some(DAY), ..KEEP_ALL };
    let deleted = db.delete_old_rows(&policy).await.unwrap();
    let mut ids = deleted.datasets.ids.clone();
    ids.sort_unstable();
    let mut expected = [unused.id, other.id];
    expected.sort_unstable();
    assert_eq!((ids, deleted.datasets.bytes), (expected.to_vec(), bytes), "the file of d1 has another row");
    assert_eq!(deleted.unreferenced_hashes, [sha256("d2")]);
    let left: Vec<Uuid> = db.datasets(OWNER, ALL).await.unwrap().iter().map(|dataset| dataset.id).collect();
    assert_eq!(left.len(), 4);
    assert!([used_again.id, with_job.id, with_validation.id, finished_use.id].iter().all(|id| left.contains(id)));
}

async fn versions_are_deleted_some_time_after_they_are_superseded(db: &Database) {
    let first = db.add_adapter(new_adapter(Some("intents"), "a1")).await.unwrap();
    let unnamed = db.add_adapter(new_adapter(None, "b1")).await.unwrap();
    db.advance_clock(DAY * 2).await.unwrap();
    let second = db.add_adapter(new_adapter(Some("intents"), "a2")).await.unwrap();
    let policy = RetentionPolicy { keep_superseded: Some(DAY), ..KEEP_ALL };
    assert_eq!(db.delete_old_rows(&policy).await.unwrap(), DeletedRows::default(), "superseded just now");
    db.advance_clock(DAY * 2).await.unwrap();
    db.activate_adapter(OWNER, first.id).await.unwrap();
    assert_eq!(db.delete_old_rows(&policy).await.unwrap(), DeletedRows::default(), "its name points to it again");
    db.advance_clock(DAY * 2).await.unwrap();
    let deleted = db.delete_old_rows(&policy).await.unwrap();
    assert_eq!((deleted.adapters.ids, deleted.unreferenced_versions), (vec![second.id], vec![sha256("a2")]));
    db.adapter(OWNER, &Reference::Id(unnamed.id)).await.unwrap();
}

async fn dry_run_finds_what_is_deleted_then(db: &Database) {
    for digits in ["a1", "a2", "a3"] {
        run_job(&**db, digits).await;
    }
    db.add_adapter(new_adapter(Some("other"), "a1")).await.unwrap();
    db.advance_clock(DAY * 3).await.unwrap();
    run_job(&**db, "a4").await;
    let policy = RetentionPolicy {
        keep_jobs: Some(DAY * 2),
        max_finished_jobs: Some(2),
        keep_events: Some(DAY),
        keep_datasets: Some(DAY),
        keep_versions: Some(2),
        keep_superseded: Some(DAY * 2),
        ..KEEP_ALL
    };
    db.advance_clock(DAY + Duration::from_secs(60)).await.unwrap();
    let found = db.find_old_rows(&policy).await.unwrap();
    let deleted = db.delete_old_rows(&policy).await.unwrap();
    assert_eq!((found.jobs.count, found.events, found.datasets.count, found.adapters.count), (3, 2, 1, 2));
    let sorted = |mut kind: DeletedKind| {
        kind.ids.sort_unstable();
        kind
    };
    for (found, deleted) in
        [(found.jobs, deleted.jobs), (found.datasets, deleted.datasets), (found.adapters, deleted.adapters)]
    {
        assert_eq!(sorted(found), sorted(deleted));
    }
    assert_eq!(found.events, deleted.events);
    assert_eq!(db.find_old_rows(&policy).await.unwrap(), DeletedRows::default());
}

async fn deleted_ids_are_cursors_for_a_month(db: &Database) {
    let dataset = add_dataset(&**db).await;
    db.delete_dataset(OWNER, dataset.id).await.unwrap();
    let page = PageRequest { limit: 10, after: Some(dataset.id) };
    db.advance_clock(DAY * 29).await.unwrap();
    db.delete_old_rows(&KEEP_ALL).await.unwrap();
    assert!(db.datasets(OWNER, page).await.unwrap().is_empty());
    db.advance_clock(DAY * 2).await.unwrap();
    db.delete_old_rows(&KEEP_ALL).await.unwrap();
    expect_error(db.datasets(OWNER, page).await, "unknown_after");
}

async fn space_of_deleted_rows_is_reclaimed(db: &Database) {
    let claimed = add_and_claim_job(&**db).await;
    let rows: Vec<MetricsRow> = (1..=20_000).map(|step| row(step, "train")).collect();
    db.record_metrics(&claimed.lease, &rows).await.unwrap();
    db.fail_job(&claimed.lease, &job_error()).await.unwrap();
    let before = db.database_bytes().await.unwrap();
    db.delete_job(OWNER, claimed.job.id).await.unwrap();
    db.reclaim_space().await.unwrap();
    let after = db.database_bytes().await.unwrap();
    // Postgres keeps the space for new rows.
    assert!(db.backend_name() == "postgres" || after < before / 2, "{before} bytes, then {after}");
}
