//! Succeeded, cancelled, paused, handed back.

use crate::support::house::{EVERYTHING, House, Wanted};
use espalier::store::{DEFAULT_OWNER, EventKind, Status};
use espalier::worker::{Workers, run_next};

const SHORT: Wanted = Wanted { name: "short", epochs: 2, seed: 1, validation: 0.1 };
/// Far longer than any test waits.
const LONG: Wanted = Wanted { name: "long", epochs: 5000, seed: 2, validation: 0.1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_job_becomes_an_adapter_and_leaves_no_checkpoints() {
    let house = House::new().await;
    let id = house.queue(SHORT).await;
    assert_eq!(run_next(&house.workshop).await.unwrap(), Some(id));
    assert_eq!(run_next(&house.workshop).await.unwrap(), None);
    let job = house.job(id).await;
    assert_eq!((job.status, job.attempt, &job.error), (Status::Succeeded, 1, &None));
    let progress = job.progress.expect("a job that is over says how far it came");
    assert_eq!(progress.step, progress.total_steps);
    let adapters = house.store().adapters(DEFAULT_OWNER, EVERYTHING).await.unwrap();
    assert_eq!(adapters.len(), 1);
    let description = &adapters[0].description;
    assert_eq!((job.adapter_id, adapters[0].job_id), (Some(adapters[0].id), Some(id)));
    assert_eq!(job.metrics, description.metrics);
    assert_eq!(description.provenance["attempt"], 1);
    let artifact = house.opens(&description.version);
    assert_eq!(artifact.card.labels, ["arrival", "fee", "help"]);
    assert!(!artifact.card.probe.inputs.is_empty(), "an adapter carries its proof");
    assert!(!house.has_checkpoints(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metrics_row_is_recorded_once_and_before_the_end() {
    let house = House::new().await;
    let id = house.queue(SHORT).await;
    house.work().await;
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
    let house = House::new().await;
    let id = house.queue(LONG).await;
    let cancelling = async {
        house.until(id, |job| job.progress.is_some()).await;
        house.store().cancel_job(DEFAULT_OWNER, id).await.unwrap();
    };
    tokio::join!(house.work(), cancelling);
    assert_eq!(house.job(id).await.status, Status::Cancelled);
    assert_eq!((house.adapters().await, house.folders()), (0, 0));
    assert!(!house.has_checkpoints(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_goes_on_from_its_checkpoint_and_ends_as_an_undisturbed_one() {
    let wanted = Wanted { name: "paused", epochs: 200, seed: 3, validation: 0.1 };
    let house = House::new().await;
    let id = house.queue(wanted).await;
    let pausing = async {
        house.until(id, |job| job.progress.is_some()).await;
        house.store().pause_job(DEFAULT_OWNER, id).await.unwrap();
    };
    tokio::join!(house.work(), pausing);
    assert_eq!(house.job(id).await.status, Status::Paused);
    assert!(house.has_checkpoints(id));
    house.store().resume_job(DEFAULT_OWNER, id).await.unwrap();
    house.work().await;
    assert_eq!(house.job(id).await.status, Status::Succeeded);
    assert_eq!(house.version("paused").await, House::undisturbed(wanted).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_hands_its_job_back_and_the_next_one_finishes_it() {
    let wanted = Wanted { name: "handed-back", epochs: 200, seed: 4, validation: 0.1 };
    let house = House::new().await;
    let id = house.queue(wanted).await;
    let workers = Workers::start(house.workshop.clone());
    house.until(id, |job| job.progress.is_some()).await;
    workers.stop().await.unwrap();
    let job = house.job(id).await;
    assert_eq!(job.status, Status::Queued);
    assert!(house.has_checkpoints(id));
    house.work().await;
    assert_eq!(house.job(id).await.status, Status::Succeeded);
    assert_eq!(house.version("handed-back").await, House::undisturbed(wanted).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_wakes_an_idle_worker_and_every_job_is_run_once() {
    let mut house = House::new().await;
    house.workshop.settings.slots = 3;
    let workers = Workers::start(house.workshop.clone());
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(house.queue(SHORT).await);
        workers.wake();
    }
    for id in &jobs {
        house.until(*id, |job| job.status.is_over()).await;
        let job = house.job(*id).await;
        assert_eq!((job.status, job.attempt, job.error), (Status::Succeeded, 1, None));
    }
    workers.stop().await.unwrap();
    assert_eq!((house.adapters().await, house.folders()), (jobs.len(), 1), "equal jobs make equal adapters");
}
