//! Errors that fail a job, and errors that are retried.

use crate::support::worker_fixture::{JobParams, WorkerFixture};
use espalier::store::Status;
use espalier::worker::run_next;
use std::fs;
use std::time::Duration;

/// More than the longest delay between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(600);

const SHORT_JOB: JobParams = JobParams { name: "short", epochs: 2, seed: 1, validation: 0.1 };

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_damaged_dataset_fails_the_job() {
    for (code, damage) in [
        ("dataset_missing", (|path| fs::remove_file(path).unwrap()) as fn(&std::path::Path)),
        ("dataset_damaged", |path| fs::write(path, "text\tlabel\na\tb\n").unwrap()),
    ] {
        let fixture = WorkerFixture::new().await;
        let id = fixture.queue_job(SHORT_JOB).await;
        let dataset = fixture.store().dataset("default", fixture.job(id).await.dataset_id).await.unwrap();
        damage(&fixture.context.blobs.data_dir().dataset_path(&dataset.hash));
        run_next(&fixture.context).await.unwrap();
        let job = fixture.job(id).await;
        assert_eq!(job.status, Status::Failed);
        assert_eq!(job.error.expect("a failed job has an error").code, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dataset_over_the_current_limits_fails_the_job() {
    let mut fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(SHORT_JOB).await;
    fixture.context.settings.data.max_rows = 3;
    fixture.run_queued_jobs().await;
    let error = fixture.job(id).await.error.expect("a failed job has an error");
    assert_eq!(error.code, "dataset_refused");
    assert!(error.detail.contains("more than the 3 rows"), "{}", error.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_for_another_base_is_left_to_workers_that_have_it() {
    let fixture = WorkerFixture::new().await;
    let mut job = fixture.job(fixture.queue_job(SHORT_JOB).await).await;
    let espalier_core::training::Plan::Single(mut spec) = job.spec else { panic!("the plan is a single run") };
    spec.base = "sha256:other".to_string();
    job.spec = (*spec).into();
    let new_job = espalier::store::NewJob {
        id: uuid::Uuid::now_v7(),
        owner: job.owner,
        name: None,
        dataset_id: job.dataset_id,
        validation_dataset_id: None,
        options: job.options,
        spec: job.spec,
        metadata: job.metadata,
        created_by: None,
        trace_context: None,
        priority: 0,
    };
    let id = fixture.store().add_job(new_job, 1000).await.unwrap().id;
    fixture.run_queued_jobs().await;
    assert_eq!(fixture.job(id).await.status, Status::Queued);
    // As of a job of an earlier version, whose row does not say so.
    fixture.execute("update jobs set base = null, kernels = null").await;
    fixture.run_queued_jobs().await;
    let error = fixture.job(id).await.error.expect("a failed job has an error");
    assert_eq!(error.code, "other_base");
    assert!(error.detail.contains("sha256:other"), "{}", error.detail);
}

/// The internal error is a file in place of the checkpoint folder.
#[tokio::test(flavor = "multi_thread")]
async fn internal_error_is_retried_up_to_max_attempts() {
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(SHORT_JOB).await;
    fs::write(fixture.context.blobs.data_dir().job_checkpoint_dir(id), "not a folder").unwrap();
    for attempt in 1..=3 {
        assert_eq!(run_next(&fixture.context).await.unwrap(), Some(id));
        let job = fixture.job(id).await;
        assert_eq!((job.status, job.attempt), (if attempt < 3 { Status::Queued } else { Status::Failed }, attempt));
        assert_eq!(run_next(&fixture.context).await.unwrap(), None, "the next attempt waits");
        fixture.store().advance_clock(MAX_BACKOFF).await.unwrap();
    }
    assert_eq!(run_next(&fixture.context).await.unwrap(), None);
    let job = fixture.job(id).await;
    assert_eq!(job.error.expect("a failed job has an error").code, "attempts_exhausted");
    assert_eq!(fixture.adapter_count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_succeeds_once_the_internal_error_is_fixed() {
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(SHORT_JOB).await;
    fs::write(fixture.context.blobs.data_dir().job_checkpoint_dir(id), "not a folder").unwrap();
    run_next(&fixture.context).await.unwrap();
    fs::remove_file(fixture.context.blobs.data_dir().job_checkpoint_dir(id)).unwrap();
    fixture.store().advance_clock(MAX_BACKOFF).await.unwrap();
    run_next(&fixture.context).await.unwrap();
    let job = fixture.job(id).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 2));
    assert_eq!(fixture.adapter_version("short").await, WorkerFixture::uninterrupted_version(SHORT_JOB).await);
}
