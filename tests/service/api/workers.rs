//! Tests of several worker processes on one database and data folder: leases and exactly-once publication.

use crate::api::adapters::other_base;
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use crate::support::database::Database;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::runtime::Runtime;

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// Lease settings: long enough to renew on a loaded machine, short enough to wait for.
const SHORT_LEASE: [&str; 8] = [
    "--lease-duration",
    "3s",
    "--heartbeat-interval",
    "500ms",
    "--poll-interval",
    "50ms",
    "--checkpoint-interval",
    "100ms",
];

/// Postgres database and data folder shared by several processes.
struct WorkerCluster {
    runtime: Runtime,
    database: Database,
    setup: ServerConfig,
}

impl WorkerCluster {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(Database::postgres());
        let setup = ServerConfig::new().with_database(database.url().to_string());
        Self { runtime, database, setup }
    }

    fn start(&self, role: &str, arguments: &[&str]) -> ServerProcess {
        self.setup.clone().with_arguments(&["--role", role]).with_arguments(arguments).start()
    }

    /// Dropped last, after all processes.
    fn drop_database(self) {
        self.runtime.block_on(self.database.drop_database());
    }
}

/// Job that trains for a few seconds.
fn long_job(name: &str) -> Value {
    small_job(60, json!({"name": name, "hyperparameters": {"epochs": 1000}}))
}

/// Waits until this attempt has completed a step.
fn wait_for_attempt(api: &ServerProcess, job: &str, attempt: u32) {
    let (begun, mut it_runs) = (format!("\"attempt\":{attempt}"), false);
    api.read_events_until(job, |line| {
        it_runs |= line.replace(' ', "").contains(&begun);
        it_runs && (line.starts_with("event: progress") || line.starts_with("event:progress"))
    });
}

/// Jobs whose adapters a process has logged as published.
fn published_jobs(worker: &ServerProcess) -> Vec<String> {
    let log = worker.log();
    let lines = log.iter().filter(|line| line.contains("\"adapter published\""));
    let job = |line: &String| serde_json::from_str::<Value>(line).unwrap()["job"].as_str().unwrap().to_string();
    lines.map(job).collect()
}

/// Returns all rows of a list, page by page.
fn list_all(app: &ServerProcess, list: &str) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{list}?limit=100{after}")).json();
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rows,
        }
    }
}

/// Returns the metrics events of a job and checks that none is duplicated.
fn metrics_rows(api: &ServerProcess, job: &str) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), "0".to_string());
    loop {
        let path = api.url(&format!("/jobs/{job}/events?after={after}"));
        let answer = api.agent().get(path).header("accept", "application/json").call().unwrap();
        let page: Value = serde_json::from_reader(answer.into_body().into_reader()).unwrap();
        let events = page["data"].as_array().unwrap();
        rows.extend(events.iter().filter(|event| event["kind"] == "metrics").map(|event| event["data"].clone()));
        match page["next"].as_str() {
            Some(next) => after = next.to_string(),
            None => return rows,
        }
    }
}

/// Stops a worker process (SIGSTOP) during a job, lets another take the job over, and continues the first at `wake`.
fn run_with_stopped_worker(wake: ResumeAt) {
    let cluster = WorkerCluster::new();
    let api = cluster.start("api", &[]);
    let mut stopped_worker = cluster.start("worker", &SHORT_LEASE);
    let id = api.submit_job(&long_job("questions"));
    api.wait_for_progress(&id);
    stopped_worker.signal(SIGSTOP);
    let mut other = cluster.start("worker", &SHORT_LEASE);
    wait_for_attempt(&api, &id, 2);
    if wake == ResumeAt::WhileTheOtherTrains {
        stopped_worker.signal(SIGCONT);
        stopped_worker.wait_for_log("lease lost");
    }
    let job = api.wait_for_job(&id);
    assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(2)), "{job:#}");
    assert!(other.terminate().0.success());
    if wake == ResumeAt::AfterTheOtherHasPublished {
        stopped_worker.signal(SIGCONT);
        stopped_worker.wait_for_log("lease lost");
    }

    // The continued worker is the only one left and runs this job.
    let again = api.train_to_success(&long_job("again"));
    assert_eq!(again["attempt"], 1);
    assert_eq!((published_jobs(&stopped_worker), published_jobs(&other)), (vec![text(&again["id"])], vec![id.clone()]));
    let adapters: BTreeSet<String> =
        list_all(&api, "/adapters").iter().map(|adapter| text(&adapter["job_id"])).collect();
    assert_eq!(adapters, BTreeSet::from([id.clone(), text(&again["id"])]));

    assert_eq!(version(&api, "questions"), version(&api, "again"));
    assert_eq!(job["metrics"], again["metrics"]);
    assert_eq!(metrics_rows(&api, &id), metrics_rows(&api, &text(&again["id"])));
    assert!(stopped_worker.terminate().0.success());
    let left = std::fs::read_dir(cluster.setup.data_dir().join("checkpoints")).unwrap().count();
    assert_eq!(left, 0, "a checkpoint was left, or made anew");
    drop(api);
    cluster.drop_database();
}

#[derive(PartialEq)]
enum ResumeAt {
    WhileTheOtherTrains,
    AfterTheOtherHasPublished,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

fn version(app: &ServerProcess, adapter: &str) -> String {
    text(&app.get(&format!("/adapters/{adapter}")).json()["version"])
}

#[test]
fn stopped_worker_resumed_during_the_second_attempt_publishes_nothing() {
    run_with_stopped_worker(ResumeAt::WhileTheOtherTrains);
}

#[test]
fn stopped_worker_resumed_after_publication_publishes_nothing() {
    run_with_stopped_worker(ResumeAt::AfterTheOtherHasPublished);
}

#[test]
fn two_workers_run_every_job_exactly_once() {
    const JOBS: u64 = 200;
    let cluster = WorkerCluster::new();
    let api = cluster.start("api", &[]);
    let mut workers = ["first", "second"].map(|_| cluster.start("worker", &["--poll-interval", "50ms"]));
    let started = std::time::Instant::now();
    let job = |seed| small_job(12, json!({"hyperparameters": {"epochs": 1, "max_steps": 3, "seed": seed}}));
    let jobs: BTreeSet<String> = (0..JOBS).map(|seed| api.submit_job(&job(seed))).collect();
    for id in &jobs {
        let job = api.wait_for_job(id);
        assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job:#}");
    }
    println!("{JOBS} jobs by two workers in {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(api.get("/jobs?limit=1&status=succeeded").json()["data"].as_array().unwrap().len(), 1);

    let adapters = list_all(&api, "/adapters");
    assert_eq!(adapters.len() as u64, JOBS);
    assert_eq!(adapters.iter().map(|adapter| text(&adapter["job_id"])).collect::<BTreeSet<_>>(), jobs);
    let versions: BTreeSet<String> = adapters.iter().map(|adapter| text(&adapter["version"])).collect();
    assert_eq!(versions.len() as u64, JOBS, "each has a seed of its own");

    workers.iter_mut().for_each(|worker| assert!(worker.terminate().0.success()));
    let shares = workers.each_ref().map(published_jobs);
    println!("shares: {} and {}", shares[0].len(), shares[1].len());
    assert!(shares.iter().all(|share| share.len() as u64 >= JOBS / 10), "one of the workers was idle");
    assert_eq!(shares.concat().len() as u64, JOBS);
    assert_eq!(shares.concat().into_iter().collect::<BTreeSet<_>>(), jobs);
    drop(api);
    cluster.drop_database();
}

#[test]
fn queued_jobs_and_requests_reach_the_workers_of_other_processes_at_once() {
    let cluster = WorkerCluster::new();
    // Longer than a test waits: without notifications the job would neither start nor stop.
    let never = ["--poll-interval", "1h", "--heartbeat-interval", "1h", "--lease-duration", "3h"];
    let api = cluster.start("api", &["--event-poll-interval", "1h"]);
    let worker = cluster.start("worker", &never);
    let job = api.submit_job(&long_job("cancelled"));
    // The first rows of metrics; progress comes with heartbeats.
    api.read_events_until(&job, |line| line.starts_with("event: metrics") || line.starts_with("event:metrics"));
    let cancelled = api.post(&format!("/jobs/{job}/cancel"), &json!({}));
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    // The stream of the other process ends with the job.
    api.read_events_until(&job, |line| line.replace(' ', "").contains("\"status\":\"cancelled\""));
    drop((api, worker));
    cluster.drop_database();
}

#[test]
fn worker_exits_when_it_is_idle_and_not_before() {
    let cluster = WorkerCluster::new();
    let api = cluster.start("api", &[]);
    let jobs = ["first", "second"].map(|name| api.submit_job(&long_job(name)));
    let started = std::time::Instant::now();
    let mut worker = cluster.start("worker", &["--exit-when-idle", "1s"]);
    assert!(worker.wait_for_exit().success());
    assert!(started.elapsed().as_secs_f64() > 1.0);
    for job in jobs {
        assert_eq!(api.get(&format!("/jobs/{job}")).json()["status"], "succeeded");
    }
    drop((api, worker));
    cluster.drop_database();
}

#[test]
fn a_job_waits_for_a_worker_with_its_base() {
    let (cluster, home) = (WorkerCluster::new(), tempfile::tempdir().unwrap());
    let api = cluster.start("api", &[]);
    let other = cluster.setup.clone().with_base_model(other_base(home.path()));
    let [other_api, other_worker] = ["api", "worker"]
        .map(|role| other.clone().with_arguments(&["--role", role, "--poll-interval", "50ms"]).start());
    let job = |name: &str| small_job(24, json!({"name": name, "hyperparameters": {"epochs": 2}}));
    let (ours, theirs) = (api.submit_job(&job("ours")), other_api.submit_job(&job("theirs")));
    assert_eq!(other_api.wait_for_job(&theirs)["status"], "succeeded");
    let path = format!("/jobs/{ours}");
    let (seen_here, seen_there, base) = (api.get(&path).json(), other_api.get(&path).json(), api.get("/base").json());
    assert_eq!((&seen_here["status"], &seen_here["waiting_for"]), (&json!("queued"), &Value::Null));
    let wanted = json!({"base": base["fingerprint"], "kernels": base["kernels"]});
    assert_eq!((&seen_there["status"], &seen_there["waiting_for"]), (&json!("queued"), &wanted));
    let bases = |app: &ServerProcess| app.get("/bases").json()["data"].clone();
    let used = |of: &Value, adapters, queued| json!({"fingerprint": of["fingerprint"], "adapters": adapters, "queued_jobs": queued, "running_jobs": 0});
    let other_base = other_api.get("/base").json();
    for (app, [first, second]) in [
        (&api, [(&base, used(&base, 0, 1)), (&other_base, used(&other_base, 1, 0))]),
        (&other_api, [(&other_base, used(&other_base, 1, 0)), (&base, used(&base, 0, 1))]),
    ] {
        let mut expected = [first.1, second.1];
        expected[0]["is_served"] = json!(true);
        expected[0]["name"] = first.0["name"].clone();
        expected[1]["is_served"] = json!(false);
        expected[1]["name"] = Value::Null;
        assert_eq!(bases(app), json!(expected));
    }
    let worker = cluster.start("worker", &["--poll-interval", "50ms"]);
    assert_eq!(api.wait_for_job(&ours)["status"], "succeeded");
    drop((api, other_api, other_worker, worker));
    cluster.drop_database();
}
