//! The main job: a dataset in, an adapter out, predictions from it.

use crate::api::app::{Setup, small_job};
use serde_json::json;

#[test]
fn a_dataset_becomes_an_adapter_that_predicts() {
    let app = Setup::new().start();
    let job = app.trained(&small_job(60, json!({"name": "questions"})));
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
fn a_cancelled_job_leaves_no_adapter() {
    let app = Setup::new().start();
    let id = app.train(&small_job(60, json!({"name": "gone", "hyperparameters": {"epochs": 50_000}})));
    assert_eq!(app.post(&format!("/jobs/{id}/cancel"), &json!({})).status, 200);
    assert_eq!(app.wait(&id)["status"], "cancelled");
    assert_eq!(app.get("/adapters/gone").status, 404);
    assert_eq!(app.get("/adapters").json()["data"], json!([]));
    assert!(!app.setup.data().join("checkpoints").join(&id).exists());
    assert_eq!(app.post(&format!("/jobs/{id}/cancel"), &json!({})).status, 409);
}

#[test]
fn a_paused_job_goes_on_where_it_was_and_ends_as_an_undisturbed_one() {
    let app = Setup::new().start();
    let job = small_job(60, json!({"hyperparameters": {"epochs": 4000}}));
    let id = app.train(&job);
    app.wait_for_progress(&id);
    assert_eq!(app.post(&format!("/jobs/{id}/pause"), &json!({})).status, 200);
    app.wait_for_status(&id, "paused");
    assert_eq!(app.post(&format!("/jobs/{id}/resume"), &json!({})).status, 200);
    let paused = app.wait(&id);
    let undisturbed = app.trained(&job);
    assert_eq!(paused["status"], "succeeded");
    assert_eq!(paused["metrics"], undisturbed["metrics"]);
    assert_eq!(paused["adapter"]["version"], undisturbed["adapter"]["version"]);
}
