//! Fails the N-th file operation, for N = 1, 2, 3, …, through the life of an adapter: upload, training, checkpoint, publication,
//! deletion. The server must work again without a restart once the fault is gone, lose nothing and leave nothing behind.

use crate::api::job_traces::is_soak;
use crate::api::kill_points::{file_names, instance_dirs, wait_until};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess, TIMEOUT, small_job};
use crate::support::preload::{EIO, ENOSPC, FaultControl};
use serde_json::{Value, json};
use std::fs::File;
use std::time::{Duration, Instant, SystemTime};

/// Configures a server whose file operations in the data folder can be made to fail.
pub fn preload_faults(setup: ServerConfig) -> (ServerConfig, FaultControl) {
    let control = setup.folder.path().join("faults");
    let faults = FaultControl::create(&control);
    let environment = faults.environment(&setup.data_dir());
    let setup = environment.iter().fold(setup, |setup, (name, value)| setup.with_environment(name, value));
    (setup, faults)
}

/// Repeats a call while the server reports a fault of its environment.
pub fn until_answered(app: &ServerProcess, call: impl Fn() -> HttpResponse) -> HttpResponse {
    let started = Instant::now();
    loop {
        let response = call();
        if !matches!(response.status, 500 | 503 | 507) {
            return response;
        }
        let last_lines = || app.log().into_iter().rev().take(20).rev().collect::<Vec<_>>().join("\n");
        assert!(started.elapsed() < TIMEOUT, "still {}: {}\n{}", response.status, response.text(), last_lines());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Uploads a dataset, trains on it, predicts, and deletes everything.
pub fn life_of_an_adapter(app: &ServerProcess) {
    let rows: Vec<Value> = small_job(24, json!({}))["examples"].as_array().unwrap().clone();
    let rows = rows.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let dataset = until_answered(app, || {
        app.post_file("/datasets", ("options", &json!({})), ("dataset", "a.jsonl", rows.as_bytes()))
    });
    // 200 if a call that seemed to fail has stored it.
    assert!(matches!(dataset.status, 200 | 201), "{}", dataset.text());
    let job = json!({"dataset_id": dataset.json()["id"], "name": "faulty", "method": {"type": "lora"},
        "hyperparameters": {"epochs": 4, "seed": 3}});
    let job = until_answered(app, || app.post("/jobs", &job));
    assert_eq!(job.status, 202, "{}", job.text());
    let path = format!("/jobs/{}", job.json()["id"].as_str().unwrap());
    let job = wait_for_end(app, &path);
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let prediction =
        until_answered(app, || app.post("/predict?adapter=faulty", &json!({"inputs": ["where is my card"]})));
    assert_eq!(prediction.status, 200, "{}", prediction.text());
    assert_eq!(prediction.json()["adapter"]["version"], job["adapter"]["version"]);
    for kind in ["adapters", "jobs", "datasets"] {
        let rows = until_answered(app, || app.get(&format!("/{kind}?limit=100"))).json()["data"].clone();
        for row in rows.as_array().unwrap() {
            let path = format!("/{kind}/{}", row["id"].as_str().unwrap());
            if kind == "jobs" {
                // A repeated POST may have queued a second job.
                wait_for_end(app, &path);
            }
            // 404 if a call that seemed to fail has deleted it.
            let deleted = until_answered(app, || app.delete(&path));
            assert!(matches!(deleted.status, 204 | 404), "{path}: {}", deleted.text());
        }
    }
}

fn wait_for_end(app: &ServerProcess, path: &str) -> Value {
    let started = Instant::now();
    loop {
        let job = until_answered(app, || app.get(path)).json();
        if matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled")) {
            return job;
        }
        assert!(started.elapsed() < TIMEOUT, "{job:#}\n{}", app.log().join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Deletes what a second job under the same name may have published meanwhile, and checks that no row and no file is left.
pub fn assert_nothing_is_left(app: &ServerProcess) {
    for kind in ["adapters", "jobs", "datasets"] {
        for row in app.get(&format!("/{kind}?limit=100")).json()["data"].as_array().unwrap() {
            assert_eq!(app.delete(&format!("/{kind}/{}", row["id"].as_str().unwrap())).status, 204);
        }
    }
    let data = app.setup.data_dir();
    let folders = || {
        let kinds = ["datasets", "adapters", "checkpoints"].map(|kind| data.join(kind));
        kinds.into_iter().chain(instance_dirs(&data))
    };
    let old = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    wait_until("the end of the cleaning up", || {
        for path in folders().flat_map(|folder| file_names(&folder).into_iter().map(move |name| folder.join(name))) {
            // As if days had passed. It may be deleted meanwhile.
            let _ = File::open(&path).and_then(|file| file.set_modified(old));
        }
        for name in file_names(&data.join("pins")).iter().filter(|name| *name != "lock") {
            let _ = File::open(data.join("pins").join(name)).and_then(|file| file.set_modified(old));
        }
        folders().all(|folder| file_names(&folder).is_empty())
    });
    assert_eq!(app.get("/health/ready").status, 200);
}

/// Runs the scenario with a fault at every `stride`-th operation until one run meets no fault.
fn fail_each_operation(error: u64, count: u64, offset: u64, stride: u64) {
    let setup = ServerConfig::new()
        .with_arguments(&["--checkpoint-interval", "20ms", "--retention-interval", "200ms"])
        .with_arguments(&["--heartbeat-interval", "100ms", "--lease-duration", "3s", "--poll-interval", "100ms"]);
    let (setup, faults) = preload_faults(setup);
    let app = setup.start();
    life_of_an_adapter(&app);
    assert_nothing_is_left(&app);
    let mut runs = 0;
    for first in (offset..).step_by(stride as usize) {
        faults.set(first, count, error);
        life_of_an_adapter(&app);
        let failures = faults.failures();
        faults.set(0, 0, 0);
        assert_nothing_is_left(&app);
        if failures == 0 {
            break;
        }
        runs += 1;
    }
    println!("error {error}: {runs} runs with faults");
    assert!(runs > 3, "only {runs} runs met a fault");
}

fn stride() -> u64 {
    if is_soak() { 1 } else { 29 }
}

#[test]
fn server_survives_a_failed_file_operation() {
    fail_each_operation(EIO, 1, 1, stride());
}

#[test]
fn server_survives_a_full_disk() {
    fail_each_operation(ENOSPC, 40, 7, stride());
}
