//! Events: each is recorded once and in order, and a reader misses none.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{Change, EventKind};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    changes_are_announced_to_every_store,
    events_are_recorded_in_order,
    metrics_row_is_recorded_once,
    duplicate_rows_within_one_call_are_recorded_once,
    one_call_records_more_rows_than_one_statement,
    reading_resumes_after_the_last_sequence,
    event_sequences_are_per_job,
    concurrent_reader_sees_every_event,
);

async fn events_are_recorded_in_order(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.record_metrics(&claim.lease, &[row(10, "train"), row(10, "validation")]).await.unwrap();
    let adapter = db.publish(&claim.lease, new_adapter(None, "ad"), &json!({})).await.unwrap();
    let events = db.events(claim.job.id, 0, 100).await.unwrap();
    let data: Vec<_> = events.iter().map(|event| (event.kind, event.data.clone())).collect();
    assert_eq!(
        data,
        [
            (EventKind::Status, json!({"status": "queued"})),
            (EventKind::Status, json!({"status": "running", "attempt": 1})),
            (EventKind::Metrics, json!({"step": 10, "split": "train", "metrics": {"loss": 1.0 / 11.0}})),
            (EventKind::Metrics, json!({"step": 10, "split": "validation", "metrics": {"loss": 1.0 / 11.0}})),
            (EventKind::Status, json!({"status": "succeeded", "attempt": 1, "adapter_id": adapter.id})),
        ]
    );
    assert!(events.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert!(events.windows(2).all(|pair| pair[0].created_at <= pair[1].created_at));
    assert!(db.events(Uuid::now_v7(), 0, 100).await.unwrap().is_empty());
}

async fn metrics_row_is_recorded_once(db: &Database) {
    let first = add_and_claim_job(&**db).await;
    db.record_metrics(&first.lease, &[row(10, "train"), row(20, "train")]).await.unwrap();
    let recorded = db.events(first.job.id, 0, 100).await.unwrap();
    expire_leases(&**db).await;
    let second = claim(&**db).await.unwrap();
    let mut changed = row(20, "train");
    changed.metrics = json!({"loss": 77});
    db.record_metrics(&second.lease, &[row(10, "train"), changed, row(30, "train")]).await.unwrap();
    let events = db.events(first.job.id, 0, 100).await.unwrap();
    assert_eq!(events[..recorded.len()], recorded, "existing events do not change");
    let steps: Vec<_> = events.iter().filter_map(|event| event.data["step"].as_u64()).collect();
    assert_eq!(steps, [10, 20, 30]);
}

async fn duplicate_rows_within_one_call_are_recorded_once(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.record_metrics(&claim.lease, &[row(1, "train"), row(1, "train")]).await.unwrap();
    db.record_metrics(&claim.lease, &[]).await.unwrap();
    let events = db.events(claim.job.id, 0, 100).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::Metrics).count(), 1);
}

async fn one_call_records_more_rows_than_one_statement(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    let rows: Vec<_> = (0..1201).map(|step| row(step, "train")).collect();
    db.record_metrics(&claim.lease, &rows).await.unwrap();
    let events = db.events(claim.job.id, 2, 2000).await.unwrap();
    let recorded: Vec<_> = events.iter().map(|event| (event.sequence, event.data["step"].as_i64())).collect();
    assert_eq!(recorded, (0..1201).map(|step| (step + 3, Some(step))).collect::<Vec<_>>());
}

async fn reading_resumes_after_the_last_sequence(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    let rows: Vec<_> = (0..50).map(|step| row(step, "train")).collect();
    db.record_metrics(&claim.lease, &rows).await.unwrap();
    let all = db.events(claim.job.id, 0, 100).await.unwrap();
    assert_eq!(all.len(), 52);
    let mut read = Vec::new();
    loop {
        let after = read.last().map_or(0, |event: &espalier::store::Event| event.sequence);
        let some = db.events(claim.job.id, after, 7).await.unwrap();
        if some.is_empty() {
            break;
        }
        read.extend(some);
    }
    assert_eq!(read, all);
}

async fn event_sequences_are_per_job(db: &Database) {
    let (first, second) = (add_job(&**db).await, add_job(&**db).await);
    let of = |events: Vec<espalier::store::Event>| events[0].sequence;
    assert_eq!(of(db.events(first.id, 0, 1).await.unwrap()), of(db.events(second.id, 0, 1).await.unwrap()));
}

async fn concurrent_reader_sees_every_event(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    let (store, lease) = (db.store(), claim.lease);
    let writer = tokio::spawn(async move {
        for step in 0..60 {
            store.record_metrics(&lease, &[row(step, "train"), row(step, "validation")]).await.unwrap();
        }
        store.fail_job(&lease, &job_error()).await.unwrap();
    });
    let mut read: Vec<espalier::store::Event> = Vec::new();
    while read.last().is_none_or(|event| event.data["status"] != "failed") {
        let after = read.last().map_or(0, |event| event.sequence);
        read.extend(db.events(claim.job.id, after, 10).await.unwrap());
    }
    writer.await.unwrap();
    assert_eq!(read, db.events(claim.job.id, 0, 1000).await.unwrap());
    assert_eq!(read.len(), 2 + 120 + 1);
}

async fn changes_are_announced_to_every_store(db: &Database) {
    // Another process, where the database sends changes to others.
    let other = if db.backend_name() == "postgres" { db.reconnect().await } else { db.store() };
    let mut changes = other.changes();
    // Until the other process listens.
    loop {
        add_job(&**db).await;
        let queued = changes.changed(|change| matches!(change, Change::JobQueued(_)));
        if tokio::time::timeout(Duration::from_millis(200), queued).await.is_ok() {
            break;
        }
    }
    let mut changes = other.changes();
    let job = claim(&**db).await.unwrap().job;
    db.cancel_job(OWNER, job.id).await.unwrap();
    for expected in [Change::JobEvent(job.id), Change::JobActionRequested(job.id)] {
        let announced = changes.changed(|change| change == expected);
        tokio::time::timeout(Duration::from_secs(60), announced).await.expect("the change is announced");
    }
    // Each adds, activates, shares or deletes an adapter.
    let first = db.add_adapter(new_adapter(Some("announced"), "a1")).await.unwrap().id;
    let second = db.add_adapter(new_adapter(Some("announced"), "a2")).await.unwrap().id;
    db.activate_adapter(OWNER, first).await.unwrap();
    db.share_adapter(OWNER, first, &["other".to_string()]).await.unwrap();
    db.delete_adapter(OWNER, second).await.unwrap();
    for _ in 0..5 {
        let announced = changes.changed(|change| change == Change::Adapters);
        tokio::time::timeout(Duration::from_secs(60), announced).await.expect("the change is announced");
    }
    assert!(other.adapter_changes() >= 5, "{}", other.adapter_changes());
}
