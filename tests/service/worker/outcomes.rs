//! Succeeded, cancelled, paused, handed back.

use crate::support::house::{ALL_ROWS, JobParams, WorkerFixture};
use espalier::store::{DEFAULT_OWNER, EventKind, Status};
use espalier::worker::{Workers, run_next};

const SHORT_JOB: JobParams = JobParams { name: "short", epochs: 2, seed: 1, validation: 0.1 };
/// Far longer than any test waits.
const LONG_JOB: JobParams = JobParams { name: "long", epochs: 5000, seed: 2, validation: 0.1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_job_becomes_an_adapter_and_leaves_no_checkpoints() {
    let house = WorkerFixture::new().await;
    let id = house.queue_job(SHORT_JOB).await;
    assert_eq!(run_next(&house.context).await.unwrap(), Some(id));
    assert_eq!(run_next(&house.context).await.unwrap(), None);
    let job = house.job(id).await;
    assert_eq!((job.status, job.attempt, &job.error), (Status::Succeeded, 1, &None));
    let progress = job.progress.expect("a job that is over says how far it came");
    assert_eq!(progress.step, progress.total_steps);
    let adapters = house.store().adapters(DEFAULT_OWNER, ALL_ROWS).await.unwrap();
    assert_eq!(adapters.len(), 1);
    let description = &adapters[0].description;
    assert_eq!((job.adapter_id, adapters[0].job_id), (Some(adapters[0].id), Some(id)));
    assert_eq!(job.metrics, description.metrics);
    assert_eq!(description.provenance["attempt"], 1);
    let artifact = house.load_artifact(&description.version);
    assert_eq!(artifact.manifest.labels, ["arrival", "fee", "help"]);
    assert!(!artifact.manifest.probe.inputs.is_empty(), "an adapter carries its proof");
    assert!(!house.has_checkpoints(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_rows_are_recorded_once_before_the_final_status() {
    let house = WorkerFixture::new().await;
    let id = house.queue_job(SHORT_JOB).await;
    house.run_queued_jobs().await;
    let events = house.store().events(id, 0, 1000).await.unwrap();
    let rows: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Metrics).collect();
    let places: std::collections::BTreeSet<_> =
        rows.iter().map(|row| (row.data["split"].to_string(), row.data["step"].as_u64())).collect();
    assert!(!rows.is_empty());
    assert_eq!(places.len(), rows.len(), "none is there twice");
    assert_eq!(events.last().unwrap().data["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_no_adapter_and_no_checkpoints() {
    let house = WorkerFixture::new().await;
    let id = house.queue_job(LONG_JOB).await;
    let cancelling = async {
        house.wait_until(id, |job| job.progress.is_some()).await;
        house.store().cancel_job(DEFAULT_OWNER, id).await.unwrap();
    };
    tokio::join!(house.run_queued_jobs(), cancelling);
    assert_eq!(house.job(id).await.status, Status::Cancelled);
    assert_eq!((house.adapter_count().await, house.adapter_directory_count()), (0, 0));
    assert!(!house.has_checkpoints(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_job_is_bit_identical_to_an_uninterrupted_one() {
    let wanted = JobParams { name: "paused", epochs: 200, seed: 3, validation: 0.1 };
    let house = WorkerFixture::new().await;
    let id = house.queue_job(wanted).await;
    let pausing = async {
        house.wait_until(id, |job| job.progress.is_some()).await;
        house.store().pause_job(DEFAULT_OWNER, id).await.unwrap();
    };
    tokio::join!(house.run_queued_jobs(), pausing);
    assert_eq!(house.job(id).await.status, Status::Paused);
    assert!(house.has_checkpoints(id));
    house.store().resume_job(DEFAULT_OWNER, id).await.unwrap();
    house.run_queued_jobs().await;
    assert_eq!(house.job(id).await.status, Status::Succeeded);
    assert_eq!(house.adapter_version("paused").await, WorkerFixture::uninterrupted_version(wanted).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_worker_requeues_its_job() {
    let wanted = JobParams { name: "handed-back", epochs: 200, seed: 4, validation: 0.1 };
    let house = WorkerFixture::new().await;
    let id = house.queue_job(wanted).await;
    let workers = Workers::start(house.context.clone());
    house.wait_until(id, |job| job.progress.is_some()).await;
    workers.stop().await.unwrap();
    let job = house.job(id).await;
    assert_eq!(job.status, Status::Queued);
    assert!(house.has_checkpoints(id));
    house.run_queued_jobs().await;
    assert_eq!(house.job(id).await.status, Status::Succeeded);
    assert_eq!(house.adapter_version("handed-back").await, WorkerFixture::uninterrupted_version(wanted).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_wakes_idle_workers_and_every_job_runs_once() {
    let mut house = WorkerFixture::new().await;
    house.context.settings.slots = 3;
    let workers = Workers::start(house.context.clone());
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(house.queue_job(SHORT_JOB).await);
        workers.wake();
    }
    for id in &jobs {
        house.wait_until(*id, |job| job.status.is_terminal()).await;
        let job = house.job(*id).await;
        assert_eq!((job.status, job.attempt, job.error), (Status::Succeeded, 1, None));
    }
    workers.stop().await.unwrap();
    assert_eq!(
        (house.adapter_count().await, house.adapter_directory_count()),
        (jobs.len(), 1),
        "equal jobs make equal adapters"
    );
}
