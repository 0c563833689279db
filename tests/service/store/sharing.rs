//! Several processes on one database, at the same time and one after another.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{Reference, RequestedAction, Status};
use serde_json::json;
use std::time::Duration;

on_both_databases!(
    a_database_answers_and_has_a_clock,
    test_clock_offset_applies_to_all_connections,
    a_restart_keeps_all_rows,
    writes_are_visible_to_other_connections_immediately,
    live_blobs_are_listed_for_garbage_collection,
    a_dataset_is_not_deleted_while_a_job_that_uses_it_is_added,
);

async fn a_database_answers_and_has_a_clock(db: &Database) {
    db.check_write().await.unwrap();
    assert!(["sqlite", "postgres"].contains(&db.backend_name()));
    let difference = db.now().await.unwrap() - chrono::Utc::now();
    assert!(difference.num_seconds().abs() < 5, "{difference}");
}

async fn test_clock_offset_applies_to_all_connections(db: &Database) {
    let other = db.reconnect().await;
    let before = other.now().await.unwrap();
    db.advance_clock(Duration::from_millis(3_600_500)).await.unwrap();
    let moved = other.now().await.unwrap() - before;
    assert!((3_600_500..3_660_000).contains(&moved.num_milliseconds()), "{moved}");
    assert!(add_job(&**db).await.created_at > before + Duration::from_secs(3600));
}

async fn a_restart_keeps_all_rows(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.record_metrics(&claim.lease, &[row(1, "train")]).await.unwrap();
    db.heartbeat(&claim.lease, LEASE, Some(&progress(1))).await.unwrap();
    db.publish(&claim.lease, new_adapter(Some("intents"), "ad"), &json!({"a": 1})).await.unwrap();
    let running = add_and_claim_job(&**db).await;
    db.pause_job(OWNER, running.job.id).await.unwrap();

    let again = db.reconnect().await;
    assert_eq!(again.jobs(OWNER, None, ALL).await.unwrap(), db.jobs(OWNER, None, ALL).await.unwrap());
    assert_eq!(again.datasets(OWNER, ALL).await.unwrap(), db.datasets(OWNER, ALL).await.unwrap());
    assert_eq!(again.adapters(OWNER, ALL).await.unwrap(), db.adapters(OWNER, ALL).await.unwrap());
    let events = again.events(claim.job.id, 0, 100).await.unwrap();
    assert_eq!(events, db.events(claim.job.id, 0, 100).await.unwrap());
    assert_eq!(events.len(), 4);
    again.adapter(OWNER, &Reference::Name("intents".to_string())).await.unwrap();
    assert_eq!(again.heartbeat(&running.lease, LEASE, None).await.unwrap(), Some(RequestedAction::Pause));
}

async fn writes_are_visible_to_other_connections_immediately(db: &Database) {
    let other = db.reconnect().await;
    let job = add_job(&**db).await;
    let claim = claim(&*other).await.unwrap();
    assert_eq!((claim.job.id, status(&**db, job.id).await), (job.id, Status::Running));
    db.cancel_job(OWNER, job.id).await.unwrap();
    assert_eq!(other.heartbeat(&claim.lease, LEASE, None).await.unwrap(), Some(RequestedAction::Cancel));
    other.complete_requested_action(&claim.lease, RequestedAction::Cancel).await.unwrap();
    assert_eq!(status(&**db, job.id).await, Status::Cancelled);
}

async fn live_blobs_are_listed_for_garbage_collection(db: &Database) {
    let finished = add_and_claim_job(&**db).await;
    db.publish(&finished.lease, new_adapter(None, "ad"), &json!({})).await.unwrap();
    let unfinished = add_job(&**db).await;
    let live = espalier::store::retention::live_blobs(&**db, KEEP_CHECKPOINTS).await.unwrap();
    assert_eq!(live.dataset_hashes.into_iter().collect::<Vec<_>>(), [sha256("da7a")]);
    assert_eq!(live.adapter_versions.into_iter().collect::<Vec<_>>(), [sha256("ad")]);
    assert_eq!(live.resumable_jobs.into_iter().collect::<Vec<_>>(), [unfinished.id]);
}

async fn a_dataset_is_not_deleted_while_a_job_that_uses_it_is_added(db: &Database) {
    for number in 0..20 {
        let dataset = db.add_dataset(new_dataset(&format!("{number:02}"))).await.unwrap();
        let (adding, deleting) = (db.store(), db.store());
        let adding = tokio::spawn(async move { adding.add_job(new_job(dataset.id), MAX_QUEUED).await });
        let deleting = tokio::spawn(async move { deleting.delete_dataset(OWNER, dataset.id).await });
        match (adding.await.unwrap(), deleting.await.unwrap()) {
            (Ok(_), Err(error)) => assert_eq!(error.code(), "dataset_in_use", "{error}"),
            (Err(error), Ok(_)) => assert_eq!(error.code(), "dataset_gone", "{error}"),
            both => panic!("exactly one must win: {both:?}"),
        }
    }
}
