//! Jobs that start from an adapter: found by every way of naming it, kept while it is needed, and never silently another.

use crate::api::app::{App, Setup, small_job};
use crate::api::moments::settled;
use crate::api::refusals::{case, check};
use crate::api::request::post;
use crate::api::traces::events;
use serde_json::{Value, json};

/// Moves no bit of any parameter.
const NONE: f64 = 1e-30;

/// Of three labels, and a little better with every step.
fn from(adapter: &str, fields: Value) -> Value {
    let mut job = small_job(60, fields);
    job["from_adapter"] = json!(adapter);
    if job["method"] == json!({"type": "lora"}) {
        job.as_object_mut().unwrap().remove("method");
    }
    job
}

fn logits(app: &App, adapter: &str) -> Value {
    let inputs = ["why was I charged a transfer number 55", "when will my card arrive", "cash"];
    let answer = app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs, "logits": true}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["predictions"].as_array().unwrap().iter().map(|one| one["logits"].clone()).collect()
}

#[test]
fn a_job_from_an_adapter_answers_as_it_at_first_and_is_known_by_its_version() {
    let app = Setup::new().start();
    let method = json!({"type": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 10});
    let source = app.trained(&small_job(60, json!({"name": "source", "method": method})));
    let version = source["adapter"]["version"].as_str().unwrap().trim_start_matches("sha256:").to_string();
    let digits = format!("source@{}", &version[..12]);
    for (count, adapter) in [source["adapter_id"].as_str().unwrap(), "source", digits.as_str()].into_iter().enumerate()
    {
        let name = format!("again-{count}");
        let still = json!({"name": name, "hyperparameters": {"learning_rate": NONE, "max_steps": 1}});
        let job = app.trained(&from(adapter, still));
        assert_eq!(job["from_adapter"], json!({"version": version, "head": "kept"}));
        assert_eq!(job["method"], source["method"]);
        assert_eq!(logits(&app, &name), logits(&app, "source"));
        let row = events(&app, job["id"].as_str().unwrap()).into_iter().find(|event| event["data"]["split"] == "start");
        assert_eq!(row.unwrap()["data"]["metrics"]["from_adapter"], job["from_adapter"]);
    }
    let job = from("source", json!({"name": "better", "hyperparameters": {"learning_rate": 0.01, "seed": 9}}));
    let better = app.trained(&job);
    assert_eq!(app.get("/adapters/better").json()["provenance"]["from_adapter"], json!(version));
    // the name may point elsewhere by now: a job keeps the version that it found, and equal work is equal
    let again = app.trained(&from(&digits, json!({"hyperparameters": {"learning_rate": 0.01, "seed": 9}})));
    assert_eq!(again["adapter"]["version"], better["adapter"]["version"]);
}

#[test]
fn an_adapter_that_a_job_starts_from_is_kept_until_the_job_is_over() {
    let app = Setup::new().start();
    app.trained(&small_job(60, json!({"name": "source"})));
    let id = app.train(&from("source", json!({"hyperparameters": {"epochs": 50_000}})));
    app.wait_for_progress(&id);
    let answer = app.delete("/adapters/source");
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("adapter_in_use")), "{}", answer.text());
    app.post(&format!("/jobs/{id}/cancel"), &json!({}));
    assert_eq!(app.wait(&id)["status"], "cancelled");
    assert_eq!(app.delete("/adapters/source").status, 204);
}

#[test]
fn a_killed_job_from_an_adapter_ends_as_an_undisturbed_one() {
    let app = Setup::new().with(&["--checkpoint-every", "50ms"]).start();
    app.trained(&small_job(60, json!({"name": "source", "method": {"type": "vera", "rank": 8}})));
    let job = from("source", json!({"hyperparameters": {"epochs": 5000}}));
    let id = app.train(&job);
    app.wait_for_progress(&id);
    let app = app.kill_and_restart();
    let killed = app.wait(&id);
    assert_eq!((&killed["status"], &killed["attempt"]), (&json!("succeeded"), &json!(2)), "{killed:#}");
    assert_eq!(app.trained(&job)["adapter"]["version"], killed["adapter"]["version"]);
}

#[test]
fn what_a_job_cannot_start_from_is_refused_with_the_field() {
    let app = Setup::new().start();
    app.trained(&small_job(60, json!({"name": "source", "method": {"type": "lora", "rank": 4}})));
    settled(&app);
    let ask = |adapter: &str, fields: Value| post("/jobs", &from(adapter, fields));
    check(
        &app,
        vec![
            case("an unknown name", ask("nobody", json!({})), 404, "adapter_not_found", "nobody").at("/from_adapter"),
            case("an unknown version", ask("source@00000000", json!({})), 404, "adapter_not_found", "00000000")
                .at("/from_adapter"),
            case("a short version", ask("source@00", json!({})), 422, "invalid_version", "8 to 64").at("/from_adapter"),
            case("another method", ask("source", json!({"method": {"type": "ia3"}})), 422, "invalid_job", "\"lora\"")
                .at("/method/type"),
            case(
                "another rank",
                ask("source", json!({"method": {"type": "lora", "alpha": 8, "rank": 3}})),
                422,
                "invalid_job",
                "rank 4",
            )
            .at("/method/rank"),
        ],
    );
}
