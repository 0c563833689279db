//! Test of SIGKILL during the rotation of a key: an old key is never lost without a new one, and nothing is half done.

use crate::api::job_traces::is_soak;
use crate::api::keyed_client::{ADMIN_KEY, KeyedClient, server_with_owners};
use crate::api::server_process::ServerConfig;
use crate::support::database::Database;
use espalier_tensor::seeded_rng::SeededRng;
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than a rotation takes.
const LONGEST_DELAY_MICROSECONDS: usize = 20_000;

#[test]
fn rotation_is_atomic_under_sigkill_on_sqlite() {
    kill_during_rotations(&server_with_owners());
}

#[test]
fn rotation_is_atomic_under_sigkill_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Database::postgres());
    kill_during_rotations(&server_with_owners().with_database(database.url().to_string()));
    runtime.block_on(database.drop_database());
}

fn kill_during_rotations(config: &ServerConfig) {
    let mut random = SeededRng::new(1, &["rotations"]);
    let mut app = config.start();
    let admin = KeyedClient::admin(&app);
    let first = admin.post("/keys", &json!({"owner": "acme", "name": "tests", "scopes": ["predict"]})).json();
    let key = first["key"].as_str().unwrap().to_string();
    let rotate = format!("/keys/{}/rotate", first["id"].as_str().unwrap());
    let mut done = 0;
    for _ in 0..if is_soak() { 20 } else { 4 } {
        let url = app.url(&rotate);
        let agent = app.agent().clone();
        let rotation = std::thread::spawn(move || {
            let request = agent.post(&url).header("authorization", format!("Bearer {ADMIN_KEY}"));
            request.header("content-type", "application/json").send(r#"{"grace_seconds": 86400}"#).is_ok()
        });
        // The delay is the random input of this test, not a wait for a condition.
        std::thread::sleep(Duration::from_micros(random.uniform_below(LONGEST_DELAY_MICROSECONDS) as u64));
        app = app.kill_and_restart();
        let is_answered = rotation.join().unwrap();
        let admin = KeyedClient::admin(&app);
        let keys = admin.get("/keys?limit=100").json()["data"].as_array().unwrap().clone();
        let added = keys.len() - 1;
        assert!(added == done || added == done + 1, "{added} keys after {done} rotations");
        assert!(added == done + 1 || !is_answered, "an answered rotation is lost");
        let old = keys.iter().find(|key| key["id"] == first["id"]).unwrap();
        assert_eq!(old["expires_at"] != Value::Null, added > 0, "the old key ends exactly if there is a new one");
        assert_eq!(KeyedClient::new(&app, &key).get("/base").status, 200, "the old key is valid for the grace period");
        done = added;
    }
}
