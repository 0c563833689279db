//! Requests with an idempotency key: one attempt at a time, the response of the first success, and their end.

use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{FinishedRequest, KeyedRequest, RequestClaim, RequestStart, Store, StoredResponse};
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    finished_request_is_replayed,
    second_attempt_waits_for_the_first,
    attempt_after_a_crash_has_the_same_object,
    attempt_that_lost_its_lease_stores_nothing,
    key_of_another_request_is_found,
    owners_and_keys_are_apart,
    records_end_after_their_lifetime,
    restarted_instance_releases_its_requests,
    concurrent_attempts_start_once,
);

const LEASE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn request(key: &str) -> KeyedRequest {
    KeyedRequest {
        owner: OWNER.to_string(),
        key_hash: sha256(key),
        request_hash: sha256("c0ffee"),
        object_id: Uuid::now_v7(),
        instance_id: Uuid::from_u128(7),
    }
}

fn response() -> StoredResponse {
    StoredResponse {
        status: 202,
        headers: vec![("location".to_string(), "/jobs/1".to_string())],
        body: Some("{\"text\": \"ü \\u0000\"}".to_string()),
    }
}

async fn begin(store: &dyn Store, request: &KeyedRequest) -> RequestStart {
    store.begin_request(request, LEASE, DAY).await.unwrap()
}

async fn claim(store: &dyn Store, request: &KeyedRequest) -> RequestClaim {
    match begin(store, request).await {
        RequestStart::Started(claim) => claim,
        other => panic!("the request must start: {other:?}"),
    }
}

async fn finished_request_is_replayed(db: &Database) {
    let request = request("a1");
    let first = claim(&**db, &request).await;
    assert_eq!((first.epoch, first.object_id), (1, request.object_id));
    assert!(db.finish_request(&first, &sha256("b0d1"), &response()).await.unwrap());
    let finished = FinishedRequest { body_hash: sha256("b0d1"), response: response() };
    assert_eq!(begin(&**db, &request).await, RequestStart::Finished(finished));
    let without_body = StoredResponse { body: None, ..response() };
    assert!(!db.finish_request(&first, &sha256("b0d1"), &without_body).await.unwrap(), "the first response stays");
    db.release_request(&first).await.unwrap();
    assert!(matches!(begin(&**db, &request).await, RequestStart::Finished(_)));
}

async fn second_attempt_waits_for_the_first(db: &Database) {
    let request = request("a1");
    let first = claim(&**db, &request).await;
    assert_eq!(begin(&**db, &request).await, RequestStart::InFlight);
    db.advance_clock(LEASE / 2).await.unwrap();
    assert!(db.extend_request(&first, LEASE).await.unwrap());
    db.advance_clock(LEASE / 2).await.unwrap();
    assert_eq!(begin(&**db, &request).await, RequestStart::InFlight, "the lease was extended");
    db.release_request(&first).await.unwrap();
    assert_eq!(claim(&**db, &request).await.epoch, 2);
}

async fn attempt_after_a_crash_has_the_same_object(db: &Database) {
    let request = request("a1");
    let first = claim(&**db, &request).await;
    db.advance_clock(LEASE).await.unwrap();
    let again = KeyedRequest { object_id: Uuid::now_v7(), ..request };
    let second = claim(&**db, &again).await;
    assert_eq!((second.epoch, second.object_id), (2, first.object_id));
}

async fn attempt_that_lost_its_lease_stores_nothing(db: &Database) {
    let request = request("a1");
    let first = claim(&**db, &request).await;
    db.advance_clock(LEASE).await.unwrap();
    let second = claim(&**db, &request).await;
    assert!(!db.extend_request(&first, LEASE).await.unwrap());
    assert!(!db.finish_request(&first, &sha256("b0d1"), &response()).await.unwrap());
    db.release_request(&first).await.unwrap();
    assert_eq!(begin(&**db, &request).await, RequestStart::InFlight);
    assert!(db.finish_request(&second, &sha256("b0d1"), &response()).await.unwrap());
}

async fn key_of_another_request_is_found(db: &Database) {
    let request = request("a1");
    let other = KeyedRequest { request_hash: sha256("07e6"), ..request.clone() };
    let first = claim(&**db, &request).await;
    assert_eq!(begin(&**db, &other).await, RequestStart::OtherRequest);
    db.finish_request(&first, &sha256("b0d1"), &response()).await.unwrap();
    assert_eq!(begin(&**db, &other).await, RequestStart::OtherRequest);
}

async fn owners_and_keys_are_apart(db: &Database) {
    let first = request("a1");
    claim(&**db, &first).await;
    claim(&**db, &KeyedRequest { owner: OTHER_OWNER.to_string(), ..first.clone() }).await;
    claim(&**db, &KeyedRequest { key_hash: sha256("a2"), ..first }).await;
}

async fn records_end_after_their_lifetime(db: &Database) {
    let (finished, in_flight, new) = (request("a1"), request("a2"), request("a3"));
    let first = claim(&**db, &finished).await;
    db.finish_request(&first, &sha256("b0d1"), &response()).await.unwrap();
    db.advance_clock(DAY).await.unwrap();
    let restarted = claim(&**db, &KeyedRequest { object_id: Uuid::now_v7(), ..finished.clone() }).await;
    assert_eq!(restarted.epoch, 1);
    assert_ne!(restarted.object_id, first.object_id, "an expired key creates another object");
    db.finish_request(&restarted, &sha256("b0d1"), &response()).await.unwrap();
    claim(&**db, &in_flight).await;
    db.advance_clock(DAY).await.unwrap();
    claim(&**db, &new).await;
    assert_eq!(db.delete_expired_requests(DAY).await.unwrap(), 2);
    assert_eq!(begin(&**db, &new).await, RequestStart::InFlight);
    assert_eq!(claim(&**db, &finished).await.epoch, 1);
}

async fn restarted_instance_releases_its_requests(db: &Database) {
    let (own, foreign) = (request("a1"), KeyedRequest { instance_id: Uuid::from_u128(8), ..request("a2") });
    let first = claim(&**db, &own).await;
    claim(&**db, &foreign).await;
    db.expire_leases_of_instance(own.instance_id).await.unwrap();
    assert_eq!(begin(&**db, &foreign).await, RequestStart::InFlight);
    assert_eq!(claim(&**db, &own).await.object_id, first.object_id);
}

async fn concurrent_attempts_start_once(db: &Database) {
    let request = request("a1");
    let attempts = (0..20).map(|_| {
        let (store, request) = (db.store(), request.clone());
        tokio::spawn(async move { store.begin_request(&request, LEASE, DAY).await.unwrap() })
    });
    let mut started = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        started += usize::from(matches!(attempt.await.unwrap(), RequestStart::Started(_)));
    }
    assert_eq!(started, 1);
}
