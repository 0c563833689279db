//! What a finished job leaves: its result, to be compared with another run's, and its files.

use crate::api::app::{Answer, App, small_job};
use crate::api::moments::{instances, names};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What two runs of one job have to agree in.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub version: String,
    pub metrics: Value,
    /// Step, split and figures, in order.
    pub rows: Vec<Value>,
}

/// Whether the reliability tests are to run at full length (`make soak`).
pub fn is_soak() -> bool {
    std::env::var("ESPALIER_SOAK").is_ok_and(|value| value == "1")
}

/// Some seconds on the tiny base.
pub fn long_job() -> Value {
    let epochs = if is_soak() { 3000 } else { 1000 };
    small_job(60, json!({"name": "questions", "hyperparameters": {"epochs": epochs, "seed": 7}}))
}

/// The result of [`long_job`] where nothing disturbs it, and how long that takes.
pub fn undisturbed() -> &'static (Trace, Duration) {
    static TRACE: OnceLock<(Trace, Duration)> = OnceLock::new();
    TRACE.get_or_init(|| {
        let app = crate::api::app::Setup::new().start();
        let started = Instant::now();
        let id = app.train(&long_job());
        (Trace::of(&app, &id), started.elapsed())
    })
}

impl Trace {
    /// Waits for the job.
    pub fn of(app: &App, id: &str) -> Self {
        let job = app.wait(id);
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

/// All events of a job, and that their numbers rise.
pub fn events(app: &App, id: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    let mut after = "0".to_string();
    loop {
        let path = format!("/jobs/{id}/events?after={after}");
        let page = Answer::of(app.agent().get(app.url(&path)).header("accept", "application/json").call()).json();
        events.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) if *next != after => after = next.to_string(),
            _ => break,
        }
    }
    assert!(events.is_sorted_by_key(|event| event["sequence"].as_u64().unwrap()), "{events:#?}");
    events
}

/// The attempts that the job's events tell of, and that its end is told once.
pub fn attempts(events: &[Value]) -> u64 {
    let statuses: Vec<&Value> =
        events.iter().filter(|event| event["kind"] == "status").map(|event| &event["data"]).collect();
    let count = |status: &str| statuses.iter().filter(|data| data["status"] == status).count();
    assert_eq!((count("queued"), count("succeeded")), (1, 1), "{statuses:#?}");
    count("running") as u64
}

/// Stops the server and looks at its data folder: one dataset, one adapter, nothing else.
pub fn assert_nothing_is_left(mut app: App, version: &str) {
    let adapters = app.get("/adapters").json()["data"].clone();
    assert_eq!(adapters.as_array().unwrap().len(), 1, "{adapters:#}");
    let (status, _) = app.terminate();
    assert!(status.success(), "{status}");
    let data = app.setup.data();
    assert_eq!(names(&data.join("adapters")), [version.trim_start_matches("sha256:")]);
    assert_eq!(names(&data.join("datasets")).len(), 1);
    assert_nothing_unfinished(&data);
}

pub fn assert_nothing_unfinished(data: &Path) {
    assert_eq!(names(&data.join("checkpoints")), [] as [&str; 0]);
    for folder in instances(data) {
        assert_eq!(names(&folder), [] as [&str; 0], "{}", folder.display());
    }
}
