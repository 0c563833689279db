//! A race over HTTP: asked for, followed, paused and killed, and its winner beside its own job.

use crate::api::app::{App, Setup, small_job};
use crate::api::moments::settled;
use crate::api::refusals::{case, check};
use crate::api::request::post;
use crate::api::traces::events;
use serde_json::{Value, json};

/// A candidate that learns, and three that hardly do.
fn job(epochs: u32, fields: Value) -> Value {
    let candidates = json!([
        {"type": "head", "hyperparameters": {"learning_rate": 1e-9}},
        {"type": "lora", "rank": 4, "hyperparameters": {"learning_rate": 0.005}},
        {"type": "ia3", "hyperparameters": {"learning_rate": 1e-9}},
        {"type": "bias", "hyperparameters": {"learning_rate": 1e-9}},
    ]);
    let mut job = small_job(60, fields);
    job["method"] = json!({"type": "auto", "candidates": candidates});
    job["hyperparameters"] = json!({"epochs": epochs, "seed": 7});
    job
}

/// The job with the winner alone.
fn alone(race: &Value, epochs: u32) -> Value {
    let winner = race["metrics"]["race"]["winner"].as_u64().unwrap() as usize;
    let mut candidate = race["method"]["candidates"][winner].clone();
    let mut own = job(epochs, json!({}));
    own["hyperparameters"] = candidate.as_object_mut().unwrap().remove("hyperparameters").unwrap();
    own["method"] = candidate;
    own
}

fn assert_is_its_own_jobs(app: &App, race: &Value, epochs: u32) {
    let own = app.trained(&alone(race, epochs));
    assert_eq!(race["adapter"]["version"], own["adapter"]["version"]);
    let mut metrics = race["metrics"].clone();
    metrics.as_object_mut().unwrap().remove("race");
    assert_eq!(metrics, own["metrics"]);
}

#[test]
fn a_race_publishes_its_winner_and_keeps_its_table() {
    let app = Setup::new().start();
    let race = app.trained(&job(8, json!({"name": "best"})));
    assert_eq!((&race["method"]["type"], &race["method"]["budget"]), (&json!("auto"), &json!({"first_rung": 216})));
    assert_eq!(
        (&race["hyperparameters"]["epochs"], &race["hyperparameters"]["learning_rate"]),
        (&json!(8), &Value::Null)
    );
    let (table, progress) = (&race["metrics"]["race"], &race["progress"]);
    assert_eq!((&table["metric"], &table["rungs"]), (&json!("accuracy"), &json!(2)), "{table:#}");
    assert_eq!(table["table"].as_array().unwrap().len(), 4 + 2);
    assert_eq!(progress["step"], progress["total_steps"]);
    let rungs: Vec<Value> = events(&app, race["id"].as_str().unwrap())
        .into_iter()
        .filter(|event| event["data"]["split"] == "race")
        .collect();
    let told: Vec<&Value> =
        rungs.iter().flat_map(|event| event["data"]["metrics"]["candidates"].as_array().unwrap()).collect();
    assert_eq!(told, table["table"].as_array().unwrap().iter().collect::<Vec<_>>());
    let adapter = app.get("/adapters/best").json();
    let winner = table["winner"].as_u64().unwrap() as usize;
    assert_eq!(adapter["method"]["type"], race["method"]["candidates"][winner]["type"]);
    assert_is_its_own_jobs(&app, &race, 8);
}

#[test]
fn a_race_that_is_paused_and_killed_ends_as_an_undisturbed_one() {
    let epochs = 1000;
    let app = Setup::new().with(&["--checkpoint-every", "50ms", "--max-attempts", "1000"]).start();
    let id = app.train(&job(epochs, json!({})));
    app.wait_for_progress(&id);
    assert_eq!(app.post(&format!("/jobs/{id}/pause"), &json!({})).status, 200);
    app.wait_for_status(&id, "paused");
    assert_eq!(app.post(&format!("/jobs/{id}/resume"), &json!({})).status, 200);
    app.wait_for_progress(&id);
    let app = app.kill_and_restart();
    app.watch(&id, |line| line.contains("\"race\""));
    let app = app.kill_and_restart();
    let race = app.wait(&id);
    assert_eq!((&race["status"], race["attempt"].as_u64().unwrap() >= 3), (&json!("succeeded"), true), "{race:#}");
    assert_is_its_own_jobs(&app, &race, epochs);
    let again = app.trained(&job(epochs, json!({})));
    assert_eq!((&again["metrics"], &again["adapter"]["version"]), (&race["metrics"], &race["adapter"]["version"]));
    settled(&app);
}

#[test]
fn a_cancelled_race_leaves_nothing() {
    let app = Setup::new().start();
    let id = app.train(&job(50_000, json!({})));
    app.wait_for_progress(&id);
    assert_eq!(app.post(&format!("/jobs/{id}/cancel"), &json!({})).status, 200);
    assert_eq!(app.wait(&id)["status"], "cancelled");
    assert_eq!(app.get("/adapters").json()["data"], json!([]));
    assert!(!app.setup.data().join("checkpoints").join(&id).exists());
}

#[test]
fn a_race_that_cannot_be_is_refused_with_the_field() {
    let app = Setup::new().with(&["--max-candidates", "3"]).start();
    app.trained(&small_job(60, json!({"name": "source"})));
    settled(&app);
    let ask = |candidates: Value| {
        post("/jobs", &small_job(60, json!({"method": {"type": "auto", "candidates": candidates}})))
    };
    let (head, lora) = (json!({"type": "head"}), json!({"type": "lora"}));
    let mut from = small_job(60, json!({"method": {"type": "auto", "candidates": [head, lora]}}));
    from["from_adapter"] = json!("source");
    let more = json!([head, lora, {"type": "ia3"}, {"type": "bias"}]);
    check(
        &app,
        vec![
            case("one", ask(json!([head])), 422, "invalid_job", "2 to 3").at("/method/candidates"),
            case("four", ask(more), 422, "invalid_job", "2 to 3").at("/method/candidates"),
            case("a wrong rank", ask(json!([head, {"type": "lora", "rank": 0}])), 422, "invalid_job", "between 1")
                .at("/method/candidates/1/rank"),
            case("a race in a race", ask(json!([head, {"type": "auto"}])), 422, "invalid_body", "`lora`")
                .at("/method/candidates/1/type"),
            case(
                "epochs of its own",
                ask(json!([head, {"type": "lora", "hyperparameters": {"epochs": 2}}])),
                422,
                "invalid_body",
                "epochs",
            )
            .at("/method/candidates/1/hyperparameters/epochs"),
            case("from an adapter", post("/jobs", &from), 422, "invalid_job", "afresh").at("/from_adapter"),
        ],
    );
}
