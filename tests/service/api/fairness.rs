//! Two owners on one server: what one of them asks for beside a flood of the other's requests.

use crate::api::keyed_client::{KeyedClient, OWNER_SCOPES, server_with_owners};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Connections of the flood.
const FLOOD_CLIENTS: usize = 16;
/// Requests of the other owner.
const REQUESTS: usize = 40;

/// Clients of two owners.
fn clients(app: &ServerProcess) -> [KeyedClient; 2] {
    ["flood", "other"].map(|owner| KeyedClient::with_new_key(app, owner, &OWNER_SCOPES))
}

/// Counts the statuses of the flood's answers to `request`, which is sent until `work` is done.
fn during_flood(flood: &KeyedClient, path: &str, request: &Value, work: impl FnOnce()) -> BTreeMap<u16, usize> {
    let is_done = AtomicBool::new(false);
    let send = || {
        let mut statuses = Vec::new();
        while !is_done.load(Ordering::Relaxed) {
            statuses.push(flood.post(path, request).status);
        }
        statuses
    };
    let statuses = thread::scope(|scope| {
        let threads: Vec<_> = (0..FLOOD_CLIENTS).map(|_| scope.spawn(send)).collect();
        work();
        is_done.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<u16>>()
    });
    statuses.into_iter().fold(BTreeMap::new(), |mut counts, status| {
        *counts.entry(status).or_default() += 1;
        counts
    })
}

#[test]
fn predictions_beside_a_flood_are_answered() {
    let app = server_with_owners().with_arguments(&["--max-queued-inputs", "64"]).start();
    let [flood, other] = clients(&app);
    let many = json!({"inputs": vec!["where is my card and when will it arrive"; 50]});
    let expected = other.post("/predict", &json!({"inputs": ["a"]})).json();
    let counts = during_flood(&flood, "/predict", &many, || {
        for _ in 0..REQUESTS {
            let answer = other.post("/predict", &json!({"inputs": ["a"]}));
            assert_eq!((answer.status, answer.json()), (200, expected.clone()));
        }
    });
    assert!(counts.keys().all(|status| [200, 503].contains(status)), "{counts:?}");
    assert!(counts.contains_key(&200) && counts.contains_key(&503), "the flood fills the queue: {counts:?}");
}

#[test]
fn generations_beside_a_flood_are_answered() {
    let limits = ["--max-queued-sequences", "8", "--max-running-sequences", "4"];
    let model = espalier_testing::jobs::fixture("decoders").join("qwen2");
    let app = server_with_owners().with_base_model(model).with_arguments(&limits).start();
    let [flood, other] = clients(&app);
    let model = other.get("/base").json()["name"].clone();
    let request = |max_tokens: u32| json!({"model": model, "prompt": "where is my card", "max_tokens": max_tokens, "temperature": 0});
    let expected = other.post("/v1/completions", &request(8)).json()["choices"].clone();
    let counts = during_flood(&flood, "/v1/completions", &request(100), || {
        for _ in 0..REQUESTS {
            let answer = other.post("/v1/completions", &request(8));
            assert_eq!((answer.status, &answer.json()["choices"]), (200, &expected));
        }
    });
    assert!(counts.keys().all(|status| [200, 503].contains(status)), "{counts:?}");
    assert!(counts.contains_key(&200) && counts.contains_key(&503), "the flood fills the queue: {counts:?}");
}

#[test]
fn owners_take_turns_in_the_queue_of_jobs() {
    let app = server_with_owners().with_arguments(&["--role", "api"]).start();
    let [flood, other] = clients(&app);
    let add = |client: &KeyedClient, priority: i32| {
        let answer = client.post("/jobs", &small_job(30, json!({"priority": priority})));
        assert_eq!((answer.status, &answer.json()["priority"]), (202, &json!(priority)), "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_string()
    };
    let flooded: Vec<String> = (0..5).map(|_| add(&flood, 0)).collect();
    let (own, low) = (add(&other, 0), add(&other, -100));
    let urgent = add(&flood, 1);
    let position =
        |client: &KeyedClient, job: &str| client.get(&format!("/jobs/{job}")).json()["queue_position"].clone();
    assert_eq!((position(&flood, &urgent), position(&other, &own)), (json!(0), json!(1)));
    assert_eq!((position(&flood, &flooded[0]), position(&other, &low)), (json!(2), json!(3)));
    assert_eq!(position(&flood, &flooded[4]), json!(7));
}

#[test]
fn a_priority_beyond_the_limits_is_refused() {
    let app = ServerConfig::new().start();
    for priority in [101, -101] {
        let answer = app.post("/jobs?validate_only=true", &small_job(30, json!({"priority": priority})));
        assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (422, &json!("/priority")));
    }
}
