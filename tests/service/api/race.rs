//! Tests of the method `auto` (successive halving): leaderboard, pause, kill, cancel, and the winner against its own job.

use crate::api::error_cases::{check_cases, error_case};
use crate::api::job_traces::events;
use crate::api::kill_points::wait_for_cleanup;
use crate::api::request::post;
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use serde_json::{Value, json};

/// One candidate that learns and three that hardly learn.
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

/// Job that trains only the winner.
fn run_winner_as_single_job(race: &Value, epochs: u32) -> Value {
    let winner = race["metrics"]["race"]["winner"].as_u64().unwrap() as usize;
    let mut candidate = race["method"]["candidates"][winner].clone();
    let mut own = job(epochs, json!({}));
    own["hyperparameters"] = candidate.as_object_mut().unwrap().remove("hyperparameters").unwrap();
    own["method"] = candidate;
    own
}

fn assert_equals_single_job(app: &ServerProcess, race: &Value, epochs: u32) {
    let own = app.train_to_success(&run_winner_as_single_job(race, epochs));
    assert_eq!(race["adapter"]["version"], own["adapter"]["version"]);
    let mut metrics = race["metrics"].clone();
    metrics.as_object_mut().unwrap().remove("race");
    assert_eq!(metrics, own["metrics"]);
}

#[test]
fn auto_method_publishes_the_best_candidate_and_its_leaderboard() {
    let app = ServerConfig::new().start();
    let race = app.train_to_success(&job(8, json!({"name": "best"})));
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
    assert_equals_single_job(&app, &race, 8);
}

#[test]
fn paused_and_killed_auto_job_is_bit_identical() {
    let epochs = 1000;
    let app = ServerConfig::new().with_arguments(&["--checkpoint-interval", "50ms", "--max-attempts", "1000"]).start();
    let id = app.submit_job(&job(epochs, json!({})));
    app.wait_for_progress(&id);
    assert_eq!(app.post(&format!("/jobs/{id}/pause"), &json!({})).status, 200);
    app.wait_for_status(&id, "paused");
    assert_eq!(app.post(&format!("/jobs/{id}/resume"), &json!({})).status, 200);
    app.wait_for_progress(&id);
    let app = app.kill_and_restart();
    app.read_events_until(&id, |line| line.contains("\"race\""));
    let app = app.kill_and_restart();
    let race = app.wait_for_job(&id);
    assert_eq!((&race["status"], race["attempt"].as_u64().unwrap() >= 3), (&json!("succeeded"), true), "{race:#}");
    assert_equals_single_job(&app, &race, epochs);
    let again = app.train_to_success(&job(epochs, json!({})));
    assert_eq!((&again["metrics"], &again["adapter"]["version"]), (&race["metrics"], &race["adapter"]["version"]));
    wait_for_cleanup(&app);
}

#[test]
fn cancelled_auto_job_leaves_nothing() {
    let app = ServerConfig::new().start();
    let id = app.submit_job(&job(50_000, json!({})));
    app.wait_for_progress(&id);
    assert_eq!(app.post(&format!("/jobs/{id}/cancel"), &json!({})).status, 200);
    assert_eq!(app.wait_for_job(&id)["status"], "cancelled");
    assert_eq!(app.get("/adapters").json()["data"], json!([]));
    assert!(!app.setup.data_dir().join("checkpoints").join(&id).exists());
}

#[test]
fn invalid_auto_method_is_rejected_with_its_pointer() {
    let app = ServerConfig::new().with_arguments(&["--max-candidates", "3"]).start();
    app.train_to_success(&small_job(60, json!({"name": "source"})));
    wait_for_cleanup(&app);
    let ask = |candidates: Value| {
        post("/jobs", &small_job(60, json!({"method": {"type": "auto", "candidates": candidates}})))
    };
    let (head, lora) = (json!({"type": "head"}), json!({"type": "lora"}));
    let mut from = small_job(60, json!({"method": {"type": "auto", "candidates": [head, lora]}}));
    from["from_adapter"] = json!("source");
    let more = json!([head, lora, {"type": "ia3"}, {"type": "bias"}]);
    check_cases(
        &app,
        vec![
            error_case("one", ask(json!([head])), 422, "invalid_job", "2 to 3").with_pointer("/method/candidates"),
            error_case("four", ask(more), 422, "invalid_job", "2 to 3").with_pointer("/method/candidates"),
            error_case(
                "a wrong rank",
                ask(json!([head, {"type": "lora", "rank": 0}])),
                422,
                "invalid_job",
                "between 1",
            )
            .with_pointer("/method/candidates/1/rank"),
            error_case("a race in a race", ask(json!([head, {"type": "auto"}])), 422, "invalid_body", "`lora`")
                .with_pointer("/method/candidates/1/type"),
            error_case(
                "epochs of its own",
                ask(json!([head, {"type": "lora", "hyperparameters": {"epochs": 2}}])),
                422,
                "invalid_body",
                "epochs",
            )
            .with_pointer("/method/candidates/1/hyperparameters/epochs"),
            error_case("from an adapter", post("/jobs", &from), 422, "invalid_job", "cannot start from an adapter")
                .with_pointer("/from_adapter"),
        ],
    );
}
