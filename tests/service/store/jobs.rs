//! Jobs: adding, reading and counting them.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::Status;
use espalier_core::error::Error;
use uuid::Uuid;

on_both_databases!(
    running_jobs_of_all_owners_are_listed,
    a_job_is_read_as_it_was_added,
    job_of_another_owner_is_not_found,
    a_job_needs_datasets_of_its_owner,
    a_job_id_is_used_once,
    full_queue_rejects_jobs,
    one_owner_does_not_fill_the_queue_of_another,
    concurrent_adds_do_not_exceed_the_queue_limit,
    every_status_is_counted,
    a_job_with_a_nul_character_is_rejected,
);

async fn a_job_is_read_as_it_was_added(db: &Database) {
    let validation = db.add_dataset(new_dataset("b2")).await.unwrap();
    let mut new = new_job(add_dataset(&**db).await.id);
    new.validation_dataset_id = Some(validation.id);
    new.trace_context = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 vendor=a".to_string());
    let job = db.add_job(new.clone(), MAX_QUEUED).await.unwrap();
    assert_eq!(job, db.job(OWNER, new.id).await.unwrap());
    assert_eq!((job.id, job.owner, job.name), (new.id, new.owner, new.name));
    assert_eq!((job.dataset_id, job.validation_dataset_id), (new.dataset_id, Some(validation.id)));
    assert_eq!((job.options, job.spec), (options(), spec().into()));
    assert_eq!((job.status, job.requested_action, job.attempt), (Status::Queued, None, 0));
    assert_eq!((job.progress, job.metrics, job.adapter_id, job.error), (None, None, None, None));
    assert_eq!((job.started_at, job.finished_at), (None, None));
    assert_eq!(job.trace_context, new.trace_context);
}

async fn job_of_another_owner_is_not_found(db: &Database) {
    let job = add_job(&**db).await;
    expect_error(db.job(OTHER_OWNER, job.id).await, "job_not_found");
    expect_error(db.cancel_job(OTHER_OWNER, job.id).await, "job_not_found");
    expect_error(db.pause_job(OTHER_OWNER, job.id).await, "job_not_found");
    expect_error(db.resume_job(OTHER_OWNER, job.id).await, "job_not_found");
    assert!(db.jobs(OTHER_OWNER, None, ALL).await.unwrap().is_empty());
    assert!(matches!(expect_error(db.job(OWNER, Uuid::now_v7()).await, "job_not_found"), Error::NotFound(_)));
    assert_eq!(status(&**db, job.id).await, Status::Queued);
}

async fn a_job_needs_datasets_of_its_owner(db: &Database) {
    let mine = add_dataset(&**db).await;
    let mut of_another = new_dataset("b2");
    of_another.owner = OTHER_OWNER.to_string();
    let theirs = db.add_dataset(of_another).await.unwrap();
    expect_error(db.add_job(new_job(Uuid::now_v7()), MAX_QUEUED).await, "dataset_gone");
    expect_error(db.add_job(new_job(theirs.id), MAX_QUEUED).await, "dataset_gone");
    let mut new = new_job(mine.id);
    new.validation_dataset_id = Some(theirs.id);
    let error = expect_error(db.add_job(new, MAX_QUEUED).await, "dataset_gone");
    assert!(matches!(error, Error::Conflict(_)));
    assert!(db.jobs(OWNER, None, ALL).await.unwrap().is_empty());
}

async fn a_job_id_is_used_once(db: &Database) {
    let job = add_job(&**db).await;
    let mut again = new_job(job.dataset_id);
    again.id = job.id;
    expect_error(db.add_job(again, MAX_QUEUED).await, "job_exists");
    assert_eq!(status_history(&**db, job.id).await, ["queued"]);
}

async fn full_queue_rejects_jobs(db: &Database) {
    let dataset = add_dataset(&**db).await;
    let first = db.add_job(new_job(dataset.id), 2).await.unwrap();
    db.add_job(new_job(dataset.id), 2).await.unwrap();
    let error = expect_error(db.add_job(new_job(dataset.id), 2).await, "queue_full");
    assert!(matches!(error, Error::Busy { retry_after, .. } if !retry_after.is_zero()));
    db.pause_job(OWNER, first.id).await.unwrap();
    db.add_job(new_job(dataset.id), 2).await.unwrap();
}

async fn one_owner_does_not_fill_the_queue_of_another(db: &Database) {
    add_job(&**db).await;
    let mut of_another = new_dataset("b2");
    of_another.owner = OTHER_OWNER.to_string();
    let mut theirs = new_job(db.add_dataset(of_another).await.unwrap().id);
    theirs.owner = OTHER_OWNER.to_string();
    db.add_job(theirs, 1).await.unwrap();
}

async fn concurrent_adds_do_not_exceed_the_queue_limit(db: &Database) {
    let dataset = add_dataset(&**db).await;
    let adding: Vec<_> = (0..12)
        .map(|_| {
            let store = db.store();
            tokio::spawn(async move { store.add_job(new_job(dataset.id), 5).await.is_ok() })
        })
        .collect();
    let mut added = 0;
    for task in adding {
        added += usize::from(task.await.unwrap());
    }
    assert_eq!(added, 5);
    assert_eq!(db.jobs(OWNER, None, ALL).await.unwrap().len(), 5);
}

async fn every_status_is_counted(db: &Database) {
    assert_eq!(db.count_jobs_by_status().await.unwrap(), Status::ALL.map(|status| (status, 0)));
    add_and_claim_job(&**db).await;
    add_job(&**db).await;
    let paused = add_job(&**db).await;
    db.pause_job(OWNER, paused.id).await.unwrap();
    let counts = db.count_jobs_by_status().await.unwrap();
    for (status, jobs) in counts {
        let expected = u64::from(matches!(status, Status::Queued | Status::Paused | Status::Running));
        assert_eq!(jobs, expected, "{status:?}");
    }
}

async fn a_job_with_a_nul_character_is_rejected(db: &Database) {
    let mut new = new_job(add_dataset(&**db).await.id);
    new.name = Some("\0".to_string());
    expect_error(db.add_job(new.clone(), MAX_QUEUED).await, "nul_character");
    new.name = None;
    let labels = vec!["a\0b".to_string()];
    new.spec = espalier_core::training::Spec { labels, ..spec() }.into();
    expect_error(db.add_job(new, MAX_QUEUED).await, "nul_character");
}

async fn running_jobs_of_all_owners_are_listed(db: &Database) {
    let queued = add_job(&**db).await;
    assert_eq!(db.running_jobs(10).await.unwrap(), []);
    let claimed = claim(&**db).await.unwrap().job;
    assert_eq!(claimed.id, queued.id);
    assert_eq!(db.running_jobs(10).await.unwrap(), [db.job(OWNER, queued.id).await.unwrap()]);
    assert_eq!(db.running_jobs(0).await.unwrap(), []);
}
