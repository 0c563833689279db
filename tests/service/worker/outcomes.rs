//! Succeeded, cancelled, paused, handed back.

use crate::support::worker_fixture::{ALL_ROWS, JobParams, WorkerFixture};
use espalier::store::{DEFAULT_OWNER, EventKind, Status};
use espalier::worker::{Workers, run_next};

const SHORT_JOB: JobParams = JobParams { name: "short", epochs: 2, seed: 1, validation: 0.1 };
/// Far longer than any test waits.
const LONG_JOB: JobParams = JobParams { name: "long", epochs: 5000, seed: 2, validation: 0.1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_job_becomes_an_adapter_and_leaves_no_checkpoints() {
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(SHORT_JOB).await;
    assert_eq!(run_next(&fixture.context).await.unwrap(), Some(id));
    assert_eq!(run_next(&fixture.context).await.unwrap(), None);
    let job = fixture.job(id).await;
    assert_eq!((job.status, job.attempt, &job.error), (Status::Succeeded, 1, &None));
    let progress = job.progress.expect("a job that is over says how far it came");
    assert_eq!(progress.step, progress.total_steps);
    let adapters = fixture.store().adapters(DEFAULT_OWNER, ALL_ROWS).await.unwrap();
    assert_eq!(adapters.len(), 1);
    let description = &adapters[0].description;
    assert_eq!((job.adapter_id, adapters[0].job_id), (Some(adapters[0].id), Some(id)));
    assert_eq!(job.metrics, description.metrics);
    assert_eq!(description.provenance["attempt"], 1);
    let artifact = fixture.load_artifact(&description.version);
    assert_eq!(artifact.manifest.labels, ["arrival", "fee", "help"]);
    assert!(!artifact.manifest.probe.inputs.is_empty(), "an adapter carries its proof");
    assert!(!fixture.has_checkpoints(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_rows_are_recorded_once_before_the_final_status() {
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(SHORT_JOB).await;
    fixture.run_queued_jobs().await;
    let events = fixture.store().events(id, 0, 1000).await.unwrap();
    let rows: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Metrics).collect();
    let places: std::collections::BTreeSet<_> =
        rows.iter().map(|row| (row.data["split"].to_string(), row.data["step"].as_u64())).collect();
    assert!(!rows.is_empty());
    assert_eq!(places.len(), rows.len(), "none is there twice");
    assert_eq!(events.last().unwrap().data["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_no_adapter_and_no_checkpoints() {
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(LONG_JOB).await;
    let cancelling = async {
        fixture.wait_until(id, |job| job.progress.is_some()).await;
        fixture.store().cancel_job(DEFAULT_OWNER, id).await.unwrap();
    };
    tokio::join!(fixture.run_queued_jobs(), cancelling);
    assert_eq!(fixture.job(id).await.status, Status::Cancelled);
    assert_eq!((fixture.adapter_count().await, fixture.adapter_directory_count()), (0, 0));
    assert!(!fixture.has_checkpoints(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_job_is_bit_identical_to_an_uninterrupted_one() {
    let wanted = JobParams { name: "paused", epochs: 200, seed: 3, validation: 0.1 };
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(wanted).await;
    let pausing = async {
        fixture.wait_until(id, |job| job.progress.is_some()).await;
        fixture.store().pause_job(DEFAULT_OWNER, id).await.unwrap();
    };
    tokio::join!(fixture.run_queued_jobs(), pausing);
    assert_eq!(fixture.job(id).await.status, Status::Paused);
    assert!(fixture.has_checkpoints(id));
    fixture.store().resume_job(DEFAULT_OWNER, id).await.unwrap();
    fixture.run_queued_jobs().await;
    assert_eq!(fixture.job(id).await.status, Status::Succeeded);
    assert_eq!(fixture.adapter_version("paused").await, WorkerFixture::uninterrupted_version(wanted).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_worker_requeues_its_job() {
    let wanted = JobParams { name: "handed-back", epochs: 200, seed: 4, validation: 0.1 };
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(wanted).await;
    let workers = Workers::start(fixture.context.clone());
    fixture.wait_until(id, |job| job.progress.is_some()).await;
    workers.stop().await.unwrap();
    let job = fixture.job(id).await;
    assert_eq!(job.status, Status::Queued);
    assert!(fixture.has_checkpoints(id));
    fixture.run_queued_jobs().await;
    assert_eq!(fixture.job(id).await.status, Status::Succeeded);
    assert_eq!(fixture.adapter_version("handed-back").await, WorkerFixture::uninterrupted_version(wanted).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_wakes_idle_workers_and_every_job_runs_once() {
    let mut fixture = WorkerFixture::new().await;
    fixture.context.settings.slots = 3;
    let workers = Workers::start(fixture.context.clone());
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(fixture.queue_job(SHORT_JOB).await);
        workers.wake();
    }
    for id in &jobs {
        fixture.wait_until(*id, |job| job.status.is_terminal()).await;
        let job = fixture.job(*id).await;
        assert_eq!((job.status, job.attempt, job.error), (Status::Succeeded, 1, None));
    }
    workers.stop().await.unwrap();
    assert_eq!(
        (fixture.adapter_count().await, fixture.adapter_directory_count()),
        (jobs.len(), 1),
        "equal jobs make equal adapters"
    );
}
