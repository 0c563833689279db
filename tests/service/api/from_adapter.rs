//! Tests of jobs initialized from an adapter: references, deletion during the job, and rejected adapters.

use crate::api::error_cases::{check_cases, error_case};
use crate::api::job_traces::events;
use crate::api::kill_points::wait_for_cleanup;
use crate::api::request::post;
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use serde_json::{Value, json};

/// Hyperparameters that change no parameter.
const ZERO_LEARNING_RATE: f64 = 1e-30;

/// Job with three labels that improves with every step.
fn job_from_adapter(adapter: &str, fields: Value) -> Value {
    let mut job = small_job(60, fields);
    job["from_adapter"] = json!(adapter);
    if job["method"] == json!({"type": "lora"}) {
        job.as_object_mut().unwrap().remove("method");
    }
    job
}

fn logits(app: &ServerProcess, adapter: &str) -> Value {
    let inputs = ["why was I charged a transfer number 55", "when will my card arrive", "cash"];
    let answer = app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs, "logits": true}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["predictions"].as_array().unwrap().iter().map(|one| one["logits"].clone()).collect()
}

#[test]
fn job_from_adapter_starts_with_its_logits() {
    let app = ServerConfig::new().start();
    let method = json!({"type": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 10});
    let source = app.train_to_success(&small_job(60, json!({"name": "source", "method": method})));
    let version = source["adapter"]["version"].as_str().unwrap().trim_start_matches("sha256:").to_string();
    let digits = format!("source@{}", &version[..12]);
    for (count, adapter) in [source["adapter_id"].as_str().unwrap(), "source", digits.as_str()].into_iter().enumerate()
    {
        let name = format!("again-{count}");
        let still = json!({"name": name, "hyperparameters": {"learning_rate": ZERO_LEARNING_RATE, "max_steps": 1}});
        let job = app.train_to_success(&job_from_adapter(adapter, still));
        assert_eq!(job["from_adapter"], json!({"version": version, "head": "kept"}));
        assert_eq!(job["method"], source["method"]);
        assert_eq!(logits(&app, &name), logits(&app, "source"));
        let row = events(&app, job["id"].as_str().unwrap()).into_iter().find(|event| event["data"]["split"] == "start");
        assert_eq!(row.unwrap()["data"]["metrics"]["from_adapter"], job["from_adapter"]);
    }
    let job =
        job_from_adapter("source", json!({"name": "better", "hyperparameters": {"learning_rate": 0.01, "seed": 9}}));
    let better = app.train_to_success(&job);
    assert_eq!(app.get("/adapters/better").json()["provenance"]["from_adapter"], json!(version));
    // The job keeps the version that the name referred to at submission, and equal jobs give equal adapters.
    let again = app
        .train_to_success(&job_from_adapter(&digits, json!({"hyperparameters": {"learning_rate": 0.01, "seed": 9}})));
    assert_eq!(again["adapter"]["version"], better["adapter"]["version"]);
}

#[test]
fn initial_adapter_cannot_be_deleted_while_the_job_is_open() {
    let app = ServerConfig::new().start();
    app.train_to_success(&small_job(60, json!({"name": "source"})));
    let id = app.submit_job(&job_from_adapter("source", json!({"hyperparameters": {"epochs": 50_000}})));
    app.wait_for_progress(&id);
    let answer = app.delete("/adapters/source");
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("adapter_in_use")), "{}", answer.text());
    app.post(&format!("/jobs/{id}/cancel"), &json!({}));
    assert_eq!(app.wait_for_job(&id)["status"], "cancelled");
    assert_eq!(app.delete("/adapters/source").status, 204);
}

#[test]
fn killed_job_from_adapter_is_bit_identical() {
    let app = ServerConfig::new().with_arguments(&["--checkpoint-interval", "50ms"]).start();
    app.train_to_success(&small_job(60, json!({"name": "source", "method": {"type": "vera", "rank": 8}})));
    let job = job_from_adapter("source", json!({"hyperparameters": {"epochs": 5000}}));
    let id = app.submit_job(&job);
    app.wait_for_progress(&id);
    let app = app.kill_and_restart();
    let killed = app.wait_for_job(&id);
    assert_eq!((&killed["status"], &killed["attempt"]), (&json!("succeeded"), &json!(2)), "{killed:#}");
    assert_eq!(app.train_to_success(&job)["adapter"]["version"], killed["adapter"]["version"]);
}

#[test]
fn invalid_from_adapter_is_rejected_with_its_pointer() {
    let app = ServerConfig::new().start();
    app.train_to_success(&small_job(60, json!({"name": "source", "method": {"type": "lora", "rank": 4}})));
    wait_for_cleanup(&app);
    let ask = |adapter: &str, fields: Value| post("/jobs", &job_from_adapter(adapter, fields));
    check_cases(
        &app,
        vec![
            error_case("an unknown name", ask("nobody", json!({})), 404, "adapter_not_found", "nobody")
                .with_pointer("/from_adapter"),
            error_case("an unknown version", ask("source@00000000", json!({})), 404, "adapter_not_found", "00000000")
                .with_pointer("/from_adapter"),
            error_case("a short version", ask("source@00", json!({})), 422, "invalid_version", "8 to 64")
                .with_pointer("/from_adapter"),
            error_case(
                "another method",
                ask("source", json!({"method": {"type": "ia3"}})),
                422,
                "invalid_job",
                "\"lora\"",
            )
            .with_pointer("/method/type"),
            error_case(
                "another rank",
                ask("source", json!({"method": {"type": "lora", "alpha": 8, "rank": 3}})),
                422,
                "invalid_job",
                "rank 4",
            )
            .with_pointer("/method/rank"),
        ],
    );
}
