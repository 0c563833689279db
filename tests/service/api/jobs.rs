//! Tests of a job's life cycle: train, predict, cancel, pause and resume.

use crate::api::server_process::{ServerConfig, small_job};
use serde_json::json;

#[test]
fn job_trains_an_adapter_that_predicts() {
    let app = ServerConfig::new().start();
    let job = app.train_to_success(&small_job(60, json!({"name": "questions"})));
    let answer = app
        .post("/predict?adapter=questions", &json!({"inputs": ["why was I charged a transfer number 55"], "top_k": 2}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["predictions"][0]["label"], "fee");
    assert_eq!(answer["predictions"][0]["top"].as_array().unwrap().len(), 2);
    assert_eq!(answer["adapter"]["id"], job["adapter_id"]);
    assert!(job["metrics"]["validation"]["accuracy"].as_f64().unwrap() > 0.9, "{:#}", job["metrics"]);
}

#[test]
fn cancelled_job_leaves_no_adapter() {
    let app = ServerConfig::new().start();
    let id = app.submit_job(&small_job(60, json!({"name": "gone", "hyperparameters": {"epochs": 50_000}})));
    assert_eq!(app.post(&format!("/jobs/{id}/cancel"), &json!({})).status, 200);
    assert_eq!(app.wait_for_job(&id)["status"], "cancelled");
    assert_eq!(app.get("/adapters/gone").status, 404);
    assert_eq!(app.get("/adapters").json()["data"], json!([]));
    assert!(!app.setup.data_dir().join("checkpoints").join(&id).exists());
    assert_eq!(app.post(&format!("/jobs/{id}/cancel"), &json!({})).status, 409);
}

#[test]
fn resumed_job_is_bit_identical() {
    let app = ServerConfig::new().start();
    let job = small_job(60, json!({"hyperparameters": {"epochs": 4000}}));
    let id = app.submit_job(&job);
    app.wait_for_progress(&id);
    assert_eq!(app.post(&format!("/jobs/{id}/pause"), &json!({})).status, 200);
    app.wait_for_status(&id, "paused");
    assert_eq!(app.post(&format!("/jobs/{id}/resume"), &json!({})).status, 200);
    let paused = app.wait_for_job(&id);
    let undisturbed = app.train_to_success(&job);
    assert_eq!(paused["status"], "succeeded");
    assert_eq!(paused["metrics"], undisturbed["metrics"]);
    assert_eq!(paused["adapter"]["version"], undisturbed["adapter"]["version"]);
}
