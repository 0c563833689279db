//! Two workers and one job; workers that vanish.

use crate::support::house::{House, LEASE, Wanted};
use espalier::store::{EventKind, Status};
use espalier::worker::run_next;
use espalier_tensor::random::Random;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_lease_publishes_nothing() {
    let wanted = Wanted { name: "contended", epochs: 200, seed: 5, validation: 0.1 };
    let house = House::new().await;
    let id = house.queue(wanted).await;
    let slow = tokio::spawn({
        let mut workshop = house.workshop.clone();
        // It does not say that it is alive.
        workshop.settings.heartbeat = Duration::from_secs(3600);
        async move { run_next(&workshop).await.unwrap() }
    });
    house.until(id, |job| job.status == Status::Running).await;
    house.store().advance_clock(LEASE * 2).await.unwrap();
    assert_eq!(run_next(&house.workshop).await.unwrap(), Some(id), "the lease has run out");
    assert_eq!(slow.await.unwrap(), Some(id));
    let job = house.job(id).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 2));
    assert_eq!((house.adapters().await, house.folders()), (1, 1));
    assert_eq!(house.version("contended").await, House::undisturbed(wanted).await);
}

/// Dropping the task is as near as one process comes to being killed: nothing is said to anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_workers_vanish_again_and_again_ends_as_an_undisturbed_one() {
    let wanted = Wanted { name: "haunted", epochs: 400, seed: 6, validation: 0.1 };
    let house = House::new().await;
    let id = house.queue(wanted).await;
    let mut random = Random::new(7, &["vanishing workers"]);
    let mut vanished = 0;
    while !house.job(id).await.status.is_over() {
        let patience = Duration::from_millis(20 + random.below(400) as u64);
        if tokio::time::timeout(patience, run_next(&house.workshop)).await.is_err() {
            vanished += 1;
            house.store().take_back(house.workshop.folder.instance()).await.unwrap();
        }
    }
    let job = house.job(id).await;
    assert_eq!((job.status, job.error), (Status::Succeeded, None));
    assert!(vanished > 0, "at least one attempt was cut short");
    assert_eq!(house.version("haunted").await, House::undisturbed(wanted).await);
    let events = house.store().events(id, 0, 10_000).await.unwrap();
    let rows = events.iter().filter(|event| event.kind == EventKind::Metrics);
    let mut places: Vec<_> = rows.map(|row| (row.data["step"].as_u64(), row.data["split"].to_string())).collect();
    let count = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), count, "no metrics row is there twice");
}
