//! Results of finished jobs, compared between runs, and checks of their files.

use crate::api::kill_points::{file_names, instance_dirs};
use crate::api::server_process::{HttpResponse, ServerProcess, small_job};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Result of a job that must be equal between runs.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    pub version: String,
    pub metrics: Value,
    /// Step, split and metrics, in order.
    pub rows: Vec<Value>,
}

/// Returns whether reliability tests run at full length (`make soak`).
pub fn is_soak() -> bool {
    std::env::var("ESPALIER_SOAK").is_ok_and(|value| value == "1")
}

/// Job that takes a few seconds on the tiny base model.
pub fn long_job() -> Value {
    let epochs = if is_soak() { 3000 } else { 1000 };
    small_job(60, json!({"name": "questions", "hyperparameters": {"epochs": epochs, "seed": 7}}))
}

/// Result and duration of [`long_job`] without interruption.
pub fn uninterrupted_result() -> &'static (JobResult, Duration) {
    static TRACE: OnceLock<(JobResult, Duration)> = OnceLock::new();
    TRACE.get_or_init(|| {
        let app = crate::api::server_process::ServerConfig::new().start();
        let started = Instant::now();
        let id = app.submit_job(&long_job());
        (JobResult::wait_for_result(&app, &id), started.elapsed())
    })
}

impl JobResult {
    /// Waits for the job and returns its result.
    pub fn wait_for_result(app: &ServerProcess, id: &str) -> Self {
        let job = app.wait_for_job(id);
        assert_eq!(job["status"], "succeeded", "{job:#}");
        let events = events(app, id);
        let rows = events.iter().filter(|event| event["kind"] == "metrics").map(|event| event["data"].clone());
        Self {
            version: job["adapter"]["version"].as_str().unwrap().to_string(),
            metrics: job["metrics"].clone(),
            rows: rows.collect(),
        }
    }
}

/// Returns all events of a job and checks that their sequence numbers increase.
pub fn events(app: &ServerProcess, id: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    let mut after = "0".to_string();
    loop {
        let path = format!("/jobs/{id}/events?after={after}");
        let page =
            HttpResponse::from_result(app.agent().get(app.url(&path)).header("accept", "application/json").call())
                .json();
        events.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) if *next != after => after = next.to_string(),
            _ => break,
        }
    }
    assert!(events.is_sorted_by_key(|event| event["sequence"].as_u64().unwrap()), "{events:#?}");
    events
}

/// Returns the attempts in the job's events and checks that exactly one event reports the end. A job is queued again while it waits
/// after repeated kills.
pub fn attempts(events: &[Value]) -> u64 {
    let statuses: Vec<&Value> =
        events.iter().filter(|event| event["kind"] == "status").map(|event| &event["data"]).collect();
    let count = |status: &str| statuses.iter().filter(|data| data["status"] == status).count();
    assert!(count("queued") >= 1 && count("succeeded") == 1, "{statuses:#?}");
    count("running") as u64
}

/// Stops the server and checks that its data folder has one dataset, one adapter and nothing else.
pub fn assert_clean_after_delete(mut app: ServerProcess, version: &str) {
    let adapters = app.get("/adapters").json()["data"].clone();
    assert_eq!(adapters.as_array().unwrap().len(), 1, "{adapters:#}");
    let (status, _) = app.terminate();
    assert!(status.success(), "{status}");
    let data = app.setup.data_dir();
    assert_eq!(file_names(&data.join("adapters")), [version.trim_start_matches("sha256:")]);
    assert_eq!(file_names(&data.join("datasets")).len(), 1);
    assert_no_temporary_files(&data);
}

pub fn assert_no_temporary_files(data: &Path) {
    assert_eq!(file_names(&data.join("checkpoints")), [] as [&str; 0]);
    for folder in instance_dirs(data) {
        assert_eq!(file_names(&folder), [] as [&str; 0], "{}", folder.display());
    }
}
