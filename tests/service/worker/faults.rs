//! What fails a job, and what is tried again.

use crate::support::house::{House, Wanted};
use espalier::store::Status;
use espalier::worker::run_next;
use std::fs;

const SHORT: Wanted = Wanted { name: "short", epochs: 2, seed: 1, validation: 0.1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_is_gone_or_damaged_fails_the_job_with_its_reason() {
    for (code, harm) in [
        ("dataset_missing", (|path| fs::remove_file(path).unwrap()) as fn(&std::path::Path)),
        ("dataset_damaged", |path| fs::write(path, "text\tlabel\na\tb\n").unwrap()),
    ] {
        let house = House::new().await;
        let id = house.queue(SHORT).await;
        let dataset = house.store().dataset("default", house.job(id).await.dataset_id).await.unwrap();
        harm(&house.workshop.folder.dataset(&dataset.hash));
        run_next(&house.workshop).await.unwrap();
        let job = house.job(id).await;
        assert_eq!(job.status, Status::Failed);
        assert_eq!(job.error.expect("it says why").code, code);
        assert!(!house.has_checkpoints(id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_beyond_todays_limits_fails_the_job_with_its_reason() {
    let mut house = House::new().await;
    let id = house.queue(SHORT).await;
    house.workshop.settings.data.max_rows = 3;
    house.work().await;
    let error = house.job(id).await.error.expect("it says why");
    assert_eq!(error.code, "dataset_refused");
    assert!(error.detail.contains("more than the 3 rows"), "{}", error.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_another_base_fails_and_says_so() {
    let house = House::new().await;
    let mut job = house.job(house.queue(SHORT).await).await;
    let espalier_core::training::Plan::Run(mut spec) = job.spec else { panic!("it is no race") };
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
    house.work().await;
    let error = house.job(id).await.error.expect("it says why");
    assert_eq!(error.code, "other_base");
    assert!(error.detail.contains("sha256:other"), "{}", error.detail);
}

/// Something of ours is in the way: a file where the checkpoints' folder has to be.
#[tokio::test(flavor = "multi_thread")]
async fn what_we_broke_is_tried_again_and_ends_after_three_attempts() {
    let house = House::new().await;
    let id = house.queue(SHORT).await;
    fs::write(house.workshop.folder.checkpoints(id), "in the way").unwrap();
    for attempt in 1..=3 {
        assert_eq!(run_next(&house.workshop).await.unwrap(), Some(id));
        let job = house.job(id).await;
        assert_eq!((job.status, job.attempt), (Status::Queued, attempt));
    }
    assert_eq!(run_next(&house.workshop).await.unwrap(), None);
    let job = house.job(id).await;
    assert_eq!(job.status, Status::Failed);
    assert_eq!(job.error.expect("it says why").code, "attempts_exhausted");
    assert_eq!(house.adapters().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_broke_and_mended_succeeds() {
    let house = House::new().await;
    let id = house.queue(SHORT).await;
    fs::write(house.workshop.folder.checkpoints(id), "in the way").unwrap();
    run_next(&house.workshop).await.unwrap();
    fs::remove_file(house.workshop.folder.checkpoints(id)).unwrap();
    run_next(&house.workshop).await.unwrap();
    let job = house.job(id).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 2));
    assert_eq!(house.version("short").await, House::undisturbed(SHORT).await);
}
