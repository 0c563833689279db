//! Publishing: one transaction for the adapter, its name and its job.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{Reference, Status};
use serde_json::json;

on_both_databases!(
    a_published_job_has_succeeded_with_its_adapter,
    second_publication_repoints_the_name,
    failed_publication_changes_nothing,
    publishing_clears_the_requested_action,
);

async fn a_published_job_has_succeeded_with_its_adapter(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.heartbeat(&claim.lease, LEASE, Some(&progress(939))).await.unwrap();
    let mut new = new_adapter(Some("intents"), "ad1");
    new.job_id = Some(claim.job.id);
    let metrics = json!({"validation": {"accuracy": 0.925, "loss": 0.1 + 0.2}});
    let adapter = db.publish(&claim.lease, new.clone(), &metrics).await.unwrap();
    assert_eq!((adapter.id, adapter.owner.as_str(), adapter.job_id), (new.id, OWNER, Some(claim.job.id)));
    assert_eq!(adapter.description, description("ad1"));
    let job = job(&**db, claim.job.id).await;
    assert_eq!((job.status, job.adapter_id, job.error.as_ref()), (Status::Succeeded, Some(adapter.id), None));
    assert_eq!((job.metrics.as_ref(), job.progress.as_ref()), (Some(&metrics), Some(&progress(939))));
    assert!(job.finished_at >= job.started_at);
    assert_eq!(db.adapter(OWNER, &Reference::Name("intents".to_string())).await.unwrap(), adapter);
    assert!(db.resumable_jobs(KEEP_CHECKPOINTS).await.unwrap().is_empty());
}

async fn second_publication_repoints_the_name(db: &Database) {
    let name = Reference::Name("intents".to_string());
    for digits in ["ad1", "ad2"] {
        let claim = add_and_claim_job(&**db).await;
        let adapter = db.publish(&claim.lease, new_adapter(Some("intents"), digits), &json!({})).await.unwrap();
        assert_eq!(db.adapter(OWNER, &name).await.unwrap(), adapter);
    }
    assert_eq!(db.adapters(OWNER, ALL).await.unwrap().len(), 2);
}

async fn failed_publication_changes_nothing(db: &Database) {
    let taken = db.add_adapter(new_adapter(Some("intents"), "ad1")).await.unwrap();
    let claim = add_and_claim_job(&**db).await;
    let mut again = new_adapter(Some("intents"), "ad2");
    again.id = taken.id;
    expect_error(db.publish(&claim.lease, again, &json!({})).await, "adapter_exists");
    assert_eq!(status(&**db, claim.job.id).await, Status::Running);
    assert_eq!(db.referenced_adapter_versions().await.unwrap(), [sha256("ad1")]);
    db.publish(&claim.lease, new_adapter(Some("intents"), "ad2"), &json!({})).await.unwrap();
}

async fn publishing_clears_the_requested_action(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    db.cancel_job(OWNER, claim.job.id).await.unwrap();
    db.publish(&claim.lease, new_adapter(None, "ad1"), &json!({})).await.unwrap();
    let job = job(&**db, claim.job.id).await;
    assert_eq!((job.status, job.requested_action), (Status::Succeeded, None));
}
