//! Outcomes of a job: succeeded, cancelled, paused, requeued.

use crate::support::worker_fixture::{ALL_ROWS, JobParams, WorkerFixture};
use espalier::store::{DEFAULT_OWNER, EventKind, Status};
use espalier::worker::{Workers, run_next};
use std::time::Duration;

const SHORT_JOB: JobParams = JobParams { name: "short", epochs: 2, seed: 1, validation: 0.1 };
/// Longer than any test waits.
const LONG_JOB: JobParams = JobParams { name: "long", epochs: 5000, seed: 2, validation: 0.1 };

#[tokio::test(flavor = "multi_thread")]
async fn finished_job_has_an_adapter_and_no_checkpoints() {
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(SHORT_JOB).await;
    assert_eq!(run_next(&fixture.context).await.unwrap(), Some(id));
    assert_eq!(run_next(&fixture.context).await.unwrap(), None);
    let job = fixture.job(id).await;
    assert_eq!((job.status, job.attempt, &job.error), (Status::Succeeded, 1, &None));
    let progress = job.progress.expect("a finished job has its progress");
    assert_eq!(progress.step, progress.total_steps);
    let adapters = fixture.store().adapters(DEFAULT_OWNER, ALL_ROWS).await.unwrap();
    assert_eq!(adapters.len(), 1);
    let description = &adapters[0].description;
    assert_eq!((job.adapter_id, adapters[0].job_id), (Some(adapters[0].id), Some(id)));
    let mut metrics = job.metrics.unwrap();
    let validation = metrics["validation"].as_object_mut().unwrap();
    for detail in ["calibration_bins", "example_lines"] {
        assert!(validation.remove(detail).is_some(), "the job alone has {detail}");
    }
    assert_eq!(Some(metrics), description.metrics);
    assert_eq!(description.provenance["attempt"], 1);
    let artifact = fixture.load_artifact(&description.version);
    assert_eq!(artifact.manifest.labels, ["arrival", "fee", "help"]);
    assert!(!artifact.manifest.probe.inputs.is_empty(), "an adapter has a probe");
    assert!(!fixture.has_checkpoints(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_rows_are_recorded_once_before_the_final_status() {
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(SHORT_JOB).await;
    fixture.run_queued_jobs().await;
    let events = fixture.store().events(id, 0, 1000).await.unwrap();
    let rows: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Metrics).collect();
    let row_keys: std::collections::BTreeSet<_> =
        rows.iter().map(|row| (row.data["split"].to_string(), row.data["step"].as_u64())).collect();
    assert!(!rows.is_empty());
    assert_eq!(row_keys.len(), rows.len(), "no row is written twice");
    assert_eq!(events.last().unwrap().data["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_job_has_no_adapter_and_no_checkpoints() {
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
    let params = JobParams { name: "paused", epochs: 200, seed: 3, validation: 0.1 };
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(params).await;
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
    assert_eq!(fixture.adapter_version("paused").await, WorkerFixture::uninterrupted_version(params).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preempted_job_is_bit_identical_to_an_uninterrupted_one() {
    let params = JobParams { name: "preempted", epochs: 200, seed: 5, validation: 0.1 };
    let mut fixture = WorkerFixture::new().await;
    fixture.context.settings.time_slice = Duration::from_millis(1);
    fixture.context.settings.poll_interval = Duration::from_millis(1);
    let id = fixture.queue_job(params).await;
    let other = async {
        fixture.wait_until(id, |job| job.progress.is_some()).await;
        fixture.queue_job_of("other", SHORT_JOB).await
    };
    let ((), other) = tokio::join!(fixture.run_queued_jobs(), other);
    let (job, other) = (fixture.job(id).await, fixture.store().job("other", other).await.unwrap());
    assert_eq!((job.status, other.status), (Status::Succeeded, Status::Succeeded));
    assert!(job.attempt >= 2, "the job was preempted");
    assert!(other.finished_at < job.finished_at, "the other owner did not wait for the end of the job");
    assert_eq!(fixture.adapter_version("preempted").await, WorkerFixture::uninterrupted_version(params).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_worker_requeues_its_job() {
    let params = JobParams { name: "requeued", epochs: 200, seed: 4, validation: 0.1 };
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(params).await;
    let workers = Workers::start(fixture.context.clone());
    fixture.wait_until(id, |job| job.progress.is_some()).await;
    workers.stop().await.unwrap();
    let job = fixture.job(id).await;
    assert_eq!(job.status, Status::Queued);
    assert!(fixture.has_checkpoints(id));
    fixture.run_queued_jobs().await;
    assert_eq!(fixture.job(id).await.status, Status::Succeeded);
    assert_eq!(fixture.adapter_version("requeued").await, WorkerFixture::uninterrupted_version(params).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_jobs_wake_idle_slots_and_every_job_runs_once() {
    let mut fixture = WorkerFixture::new().await;
    fixture.context.settings.slots = 3;
    let workers = Workers::start(fixture.context.clone());
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(fixture.queue_job(SHORT_JOB).await);
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
        "equal jobs give one adapter folder"
    );
}
