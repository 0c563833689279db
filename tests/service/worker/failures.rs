//! What fails a job, and what is tried again.

use crate::support::house::{JobParams, WorkerFixture};
use espalier::store::Status;
use espalier::worker::run_next;
use std::fs;

const SHORT_JOB: JobParams = JobParams { name: "short", epochs: 2, seed: 1, validation: 0.1 };

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_damaged_dataset_fails_the_job() {
    for (code, harm) in [
        ("dataset_missing", (|path| fs::remove_file(path).unwrap()) as fn(&std::path::Path)),
        ("dataset_damaged", |path| fs::write(path, "text\tlabel\na\tb\n").unwrap()),
    ] {
        let house = WorkerFixture::new().await;
        let id = house.queue_job(SHORT_JOB).await;
        let dataset = house.store().dataset("default", house.job(id).await.dataset_id).await.unwrap();
        harm(&house.context.data_folder.dataset_path(&dataset.hash));
        run_next(&house.context).await.unwrap();
        let job = house.job(id).await;
        assert_eq!(job.status, Status::Failed);
        assert_eq!(job.error.expect("it says why").code, code);
        assert!(!house.has_checkpoints(id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dataset_over_the_current_limits_fails_the_job() {
    let mut house = WorkerFixture::new().await;
    let id = house.queue_job(SHORT_JOB).await;
    house.context.settings.data.max_rows = 3;
    house.run_queued_jobs().await;
    let error = house.job(id).await.error.expect("it says why");
    assert_eq!(error.code, "dataset_refused");
    assert!(error.detail.contains("more than the 3 rows"), "{}", error.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_for_another_base_fails() {
    let house = WorkerFixture::new().await;
    let mut job = house.job(house.queue_job(SHORT_JOB).await).await;
    let espalier_core::training::Plan::Single(mut spec) = job.spec else { panic!("it is no race") };
    spec.base = "sha256:other".to_string();
    job.spec = (*spec).into();
    let new = espalier::store::NewJob {
        id: uuid::Uuid::now_v7(),
        owner: job.owner,
        name: None,
        dataset_id: job.dataset_id,
        validation_dataset_id: None,
        options: job.options,
        spec: job.spec,
    };
    let id = house.store().add_job(new, 1000).await.unwrap().id;
    house.run_queued_jobs().await;
    let error = house.job(id).await.error.expect("it says why");
    assert_eq!(error.code, "other_base");
    assert!(error.detail.contains("sha256:other"), "{}", error.detail);
}

/// Something of ours is in the way: a file where the checkpoints' folder has to be.
#[tokio::test(flavor = "multi_thread")]
async fn internal_error_is_retried_up_to_max_attempts() {
    let house = WorkerFixture::new().await;
    let id = house.queue_job(SHORT_JOB).await;
    fs::write(house.context.data_folder.job_checkpoint_dir(id), "in the way").unwrap();
    for attempt in 1..=3 {
        assert_eq!(run_next(&house.context).await.unwrap(), Some(id));
        let job = house.job(id).await;
        assert_eq!((job.status, job.attempt), (Status::Queued, attempt));
    }
    assert_eq!(run_next(&house.context).await.unwrap(), None);
    let job = house.job(id).await;
    assert_eq!(job.status, Status::Failed);
    assert_eq!(job.error.expect("it says why").code, "attempts_exhausted");
    assert_eq!(house.adapter_count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_succeeds_once_the_internal_error_is_fixed() {
    let house = WorkerFixture::new().await;
    let id = house.queue_job(SHORT_JOB).await;
    fs::write(house.context.data_folder.job_checkpoint_dir(id), "in the way").unwrap();
    run_next(&house.context).await.unwrap();
    fs::remove_file(house.context.data_folder.job_checkpoint_dir(id)).unwrap();
    run_next(&house.context).await.unwrap();
    let job = house.job(id).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 2));
    assert_eq!(house.adapter_version("short").await, WorkerFixture::uninterrupted_version(SHORT_JOB).await);
}
