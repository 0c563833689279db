//! Leases: two workers with one job, and workers that disappear.

use crate::support::worker_fixture::{JobParams, LEASE, WorkerFixture};
use espalier::store::{EventKind, Status};
use espalier::worker::run_next;
use espalier_tensor::seeded_rng::SeededRng;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn worker_with_lost_lease_publishes_nothing() {
    let params = JobParams { name: "contended", epochs: 200, seed: 5, validation: 0.1 };
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(params).await;
    let stalled_worker = tokio::spawn({
        let mut context = fixture.context.clone();
        // This worker sends no heartbeat.
        context.settings.heartbeat_interval = Duration::from_secs(3600);
        async move { run_next(&context).await.unwrap() }
    });
    fixture.wait_until(id, |job| job.status == Status::Running).await;
    fixture.store().advance_clock(LEASE * 2).await.unwrap();
    assert_eq!(run_next(&fixture.context).await.unwrap(), Some(id), "the lease has expired");
    assert_eq!(stalled_worker.await.unwrap(), Some(id));
    let job = fixture.job(id).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 2));
    assert_eq!((fixture.adapter_count().await, fixture.adapter_directory_count()), (1, 1));
    assert_eq!(fixture.adapter_version("contended").await, WorkerFixture::uninterrupted_version(params).await);
}

/// A dropped task stands for a killed process: it writes nothing to the store.
#[tokio::test(flavor = "multi_thread")]
async fn repeatedly_abandoned_job_is_bit_identical_to_an_uninterrupted_one() {
    let params = JobParams { name: "abandoned", epochs: 400, seed: 6, validation: 0.1 };
    let fixture = WorkerFixture::new().await;
    let id = fixture.queue_job(params).await;
    let mut context = fixture.context.clone();
    // On a busy machine an attempt may end before its first checkpoint.
    context.settings.max_attempts = 1000;
    let mut random = SeededRng::new(7, &["abandoned workers"]);
    let mut abandoned = 0;
    while !fixture.job(id).await.status.is_terminal() {
        let time_limit = Duration::from_millis(20 + random.uniform_below(400) as u64);
        if tokio::time::timeout(time_limit, run_next(&context)).await.is_err() {
            abandoned += 1;
            fixture.store().expire_leases_of_instance(fixture.context.blobs.data_dir().instance_id()).await.unwrap();
        }
    }
    let job = fixture.job(id).await;
    assert_eq!((job.status, job.error), (Status::Succeeded, None));
    assert!(abandoned > 0, "at least one attempt was abandoned");
    assert_eq!(fixture.adapter_version("abandoned").await, WorkerFixture::uninterrupted_version(params).await);
    let events = fixture.store().events(id, 0, 10_000).await.unwrap();
    let rows = events.iter().filter(|event| event.kind == EventKind::Metrics);
    let mut row_keys: Vec<_> = rows.map(|row| (row.data["step"].as_u64(), row.data["split"].to_string())).collect();
    let count = row_keys.len();
    row_keys.sort();
    row_keys.dedup();
    assert_eq!(row_keys.len(), count, "no metrics row is written twice");
}
