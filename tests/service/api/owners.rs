//! Tests of the deletion of everything that belongs to an owner.

use crate::api::kill_points::{file_names, instance_dirs};
use crate::api::server_process::{ServerConfig, small_job};
use serde_json::json;
use std::fs;
use std::path::Path;

/// Whether a file of this folder or below contains the text.
fn contains(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => contains(&path, text),
        false => fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()),
    })
}

#[test]
fn nothing_of_a_deleted_owner_is_left_on_disk() {
    let app = ServerConfig::new().start();
    // Each with a dataset of its own: a file that was sent twice within an hour stays until garbage collection.
    let job = |name: &str, rows, epochs| small_job(rows, json!({"name": name, "hyperparameters": {"epochs": epochs}}));
    let finished = app.train_to_success(&job("secret-name", 30, 1));
    assert_eq!(app.post("/predict?adapter=secret-name", &json!({"inputs": ["why"]})).status, 200);
    let running = app.submit_job(&job("endless", 31, 100_000));
    app.wait_for_progress(&running);
    let queued = app.submit_job(&job("queued", 32, 1));

    let preview = app.delete("/owners/default?dry_run=true").json();
    assert_eq!((&preview["dry_run"], &preview["rows"]["jobs"]), (&json!(true), &json!(3)));
    assert_eq!(app.get(&format!("/jobs/{running}")).json()["status"], "running");
    let answer = app.delete("/owners/default");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let receipt = answer.json();
    assert_eq!((&receipt["owner"], &receipt["dry_run"]), (&json!("default"), &json!(false)));
    assert_eq!(receipt["jobs"].as_array().unwrap().len(), 3);
    assert_eq!(receipt["adapters"][0]["id"], finished["adapter_id"]);
    let cancelled = receipt["cancelled_jobs"].as_array().unwrap();
    assert!(cancelled.len() == 2 && [running, queued].iter().all(|id| cancelled.contains(&json!(id))), "{receipt:#}");
    for path in ["/jobs", "/datasets", "/adapters"] {
        assert_eq!(app.get(path).json()["data"], json!([]), "{path}");
    }
    assert_eq!(app.post("/predict?adapter=secret-name", &json!({"inputs": ["why"]})).status, 404);
    let data = app.setup.data_dir();
    for folder in ["datasets", "adapters", "checkpoints", "feature-cache"] {
        assert_eq!(file_names(&data.join(folder)), [] as [&str; 0], "{folder}");
    }
    assert!(instance_dirs(&data).iter().all(|folder| file_names(folder).is_empty()));
    for text in ["secret-name", "arrival", "transfer"] {
        assert!(!contains(&data, text), "{text}");
    }
    let again = app.delete("/owners/default").json();
    assert_eq!((&again["rows"], &again["bytes"]), (&json!({}), &json!(0)));
    app.train_to_success(&job("again", 30, 1));
}

#[test]
fn owner_without_anything_is_deleted_and_invalid_names_are_refused() {
    let app = ServerConfig::new().start();
    let unknown = app.delete("/owners/nobody");
    assert_eq!((unknown.status, &unknown.json()["rows"]), (200, &json!({})));
    for name in ["a%00b", "two%20words", "a%2Fb"] {
        let refused = app.delete(&format!("/owners/{name}"));
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("invalid_owner")), "{name}");
    }
    assert_eq!(app.delete("/owners/default?dry_run=maybe").status, 422);
}
