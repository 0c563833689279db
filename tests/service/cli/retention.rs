//! Tests of `espalier retention` beside a running server.

use crate::api::server_process::{ServerConfig, small_job};
use crate::cli::run::run;
use serde_json::{Value, json};

#[test]
fn dry_run_reports_what_is_deleted_beside_a_running_server() {
    let app = ServerConfig::new().start();
    let job = |seed: u64| small_job(30, json!({"name": "intents", "hyperparameters": {"epochs": 1, "seed": seed}}));
    let (first, second) = (app.train_to_success(&job(1)), app.train_to_success(&job(2)));
    let data = app.setup.data_dir();
    let arguments =
        ["retention", "--data-dir", data.to_str().unwrap(), "--max-finished-jobs", "1", "--keep-versions", "1"];
    let retention = |more: &[&str]| run(&[&arguments[..], more].concat()).success_stdout();
    let json_report = |more: &[&str]| -> Value { serde_json::from_str(&retention(more)).unwrap() };
    let found = json_report(&["--dry-run", "--json"]);
    assert_eq!((&found["dry_run"], &found["rows"]["jobs"]["ids"]), (&json!(true), &json!([first["id"]])));
    assert_eq!(found["rows"]["adapters"]["ids"], json!([first["adapter_id"]]));
    assert!(found["rows"]["adapters"]["bytes"].as_u64().unwrap() > 0, "{found:#}");
    assert_eq!(app.get("/jobs").json()["data"].as_array().unwrap().len(), 2);
    let text = retention(&["--dry-run"]);
    assert!(text.starts_with("would be deleted:") && text.contains(first["id"].as_str().unwrap()), "{text}");
    let deleted = json_report(&["--json"]);
    assert_eq!((&deleted["dry_run"], &deleted["rows"]), (&json!(false), &found["rows"]));
    let jobs = app.get("/jobs").json();
    assert_eq!((jobs["data"].as_array().unwrap().len(), &jobs["data"][0]["id"]), (1, &second["id"]));
    assert_eq!(app.get("/adapters").json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(app.post("/predict?adapter=intents", &json!({"inputs": ["why"]})).status, 200);
    assert_eq!(json_report(&["--json"])["rows"]["jobs"]["count"], 0);
}
