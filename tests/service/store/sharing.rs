//! Several processes on one database, and one process after another.

use super::scene::*;
use crate::support::database::Database;
use crate::support::values::*;
use espalier::store::{Reference, Status, Wish};
use serde_json::json;
use std::time::Duration;

on_both_databases!(
    a_database_answers_and_has_a_clock,
    a_moved_clock_is_moved_for_all,
    a_restart_keeps_everything,
    two_processes_see_each_other_at_once,
    what_rows_need_is_told_for_the_sweep,
    a_dataset_is_never_deleted_under_a_new_job,
);

async fn a_database_answers_and_has_a_clock(db: &Database) {
    db.ping().await.unwrap();
    assert!(["sqlite", "postgres"].contains(&db.kind()));
    let difference = db.now().await.unwrap() - chrono::Utc::now();
    assert!(difference.num_seconds().abs() < 5, "{difference}");
}

async fn a_moved_clock_is_moved_for_all(db: &Database) {
    let other = db.connect_again().await;
    let before = other.now().await.unwrap();
    db.advance_clock(Duration::from_millis(3_600_500)).await.unwrap();
    let moved = other.now().await.unwrap() - before;
    assert!((3_600_500..3_660_000).contains(&moved.num_milliseconds()), "{moved}");
    assert!(a_job(&**db).await.created_at > before + Duration::from_secs(3600));
}

async fn a_restart_keeps_everything(db: &Database) {
    let claim = a_claim(&**db).await;
    db.record_rows(&claim.lease, &[row(1, "train")]).await.unwrap();
    db.heartbeat(&claim.lease, LEASE, Some(&progress(1))).await.unwrap();
    db.publish(&claim.lease, new_adapter(Some("intents"), "ad"), &json!({"a": 1})).await.unwrap();
    let running = a_claim(&**db).await;
    db.pause_job(OWNER, running.job.id).await.unwrap();

    let again = db.connect_again().await;
    assert_eq!(again.jobs(OWNER, None, ALL).await.unwrap(), db.jobs(OWNER, None, ALL).await.unwrap());
    assert_eq!(again.datasets(OWNER, ALL).await.unwrap(), db.datasets(OWNER, ALL).await.unwrap());
    assert_eq!(again.adapters(OWNER, ALL).await.unwrap(), db.adapters(OWNER, ALL).await.unwrap());
    let events = again.events(claim.job.id, 0, 100).await.unwrap();
    assert_eq!(events, db.events(claim.job.id, 0, 100).await.unwrap());
    assert_eq!(events.len(), 4);
    again.adapter(OWNER, &Reference::Name("intents".to_string())).await.unwrap();
    assert_eq!(again.heartbeat(&running.lease, LEASE, None).await.unwrap(), Some(Wish::Pause));
}

async fn two_processes_see_each_other_at_once(db: &Database) {
    let other = db.connect_again().await;
    let job = a_job(&**db).await;
    let claim = claim(&*other).await.unwrap();
    assert_eq!((claim.job.id, status(&**db, job.id).await), (job.id, Status::Running));
    db.cancel_job(OWNER, job.id).await.unwrap();
    assert_eq!(other.heartbeat(&claim.lease, LEASE, None).await.unwrap(), Some(Wish::Cancel));
    other.stopped(&claim.lease, Wish::Cancel).await.unwrap();
    assert_eq!(status(&**db, job.id).await, Status::Cancelled);
}

async fn what_rows_need_is_told_for_the_sweep(db: &Database) {
    let over = a_claim(&**db).await;
    db.publish(&over.lease, new_adapter(None, "ad"), &json!({})).await.unwrap();
    let open = a_job(&**db).await;
    let needed = espalier::store::needed(&**db).await.unwrap();
    assert_eq!(needed.hashes.into_iter().collect::<Vec<_>>(), [sha256("da7a")]);
    assert_eq!(needed.versions.into_iter().collect::<Vec<_>>(), [sha256("ad")]);
    assert_eq!(needed.open_jobs.into_iter().collect::<Vec<_>>(), [open.id]);
}

async fn a_dataset_is_never_deleted_under_a_new_job(db: &Database) {
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
