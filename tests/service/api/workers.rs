//! Workers that share a database and a data folder with an api: who has the lease, and who did what.

use crate::api::app::{App, Setup, small_job};
use crate::support::database::Database;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::runtime::Runtime;

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// Long enough for a loaded machine to keep, short enough to wait for.
const SHORT_LEASE: [&str; 8] =
    ["--lease", "3s", "--heartbeat", "500ms", "--poll", "50ms", "--checkpoint-every", "100ms"];

/// A Postgres database and a data folder that several processes share.
struct House {
    runtime: Runtime,
    database: Database,
    setup: Setup,
}

impl House {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(Database::postgres());
        let setup = Setup::new().on(database.url().to_string());
        Self { runtime, database, setup }
    }

    fn start(&self, role: &str, arguments: &[&str]) -> App {
        self.setup.clone().with(&["--role", role]).with(arguments).start()
    }

    /// After everything that was started here.
    fn end(self) {
        self.runtime.block_on(self.database.end());
    }
}

/// Some seconds of training.
fn long_job(name: &str) -> Value {
    small_job(60, json!({"name": name, "hyperparameters": {"epochs": 1000}}))
}

/// Until this attempt has done a step.
fn wait_for_attempt(api: &App, job: &str, attempt: u32) {
    let (begun, mut it_runs) = (format!("\"attempt\":{attempt}"), false);
    api.watch(job, |line| {
        it_runs |= line.replace(' ', "").contains(&begun);
        it_runs && (line.starts_with("event: progress") || line.starts_with("event:progress"))
    });
}

/// The jobs whose adapters a process says it has published.
fn published(worker: &App) -> Vec<String> {
    let log = worker.log();
    let lines = log.iter().filter(|line| line.contains("\"adapter published\""));
    let job = |line: &String| serde_json::from_str::<Value>(line).unwrap()["span"]["job"].as_str().unwrap().to_string();
    lines.map(job).collect()
}

/// Every row of a list, page by page.
fn all(app: &App, list: &str) -> Vec<Value> {
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

/// The rows of metrics in a job's history; none may be there twice.
fn metrics_rows(api: &App, job: &str) -> Vec<Value> {
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

/// A worker is stopped in the middle of a job and another one takes the job over; `wake` says when the first is woken.
fn a_worker_sleeps_through_its_lease(wake: Wake) {
    let house = House::new();
    let api = house.start("api", &[]);
    let mut sleeper = house.start("worker", &SHORT_LEASE);
    let id = api.train(&long_job("questions"));
    api.wait_for_progress(&id);
    sleeper.signal(SIGSTOP);
    let mut other = house.start("worker", &SHORT_LEASE);
    wait_for_attempt(&api, &id, 2);
    if wake == Wake::WhileTheOtherTrains {
        sleeper.signal(SIGCONT);
        sleeper.wait_for_log("the lease is lost");
    }
    let job = api.wait(&id);
    assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(2)), "{job:#}");
    assert!(other.terminate().0.success());
    if wake == Wake::AfterTheOtherHasPublished {
        sleeper.signal(SIGCONT);
        sleeper.wait_for_log("the lease is lost");
    }

    // Only the woken one is left for this, and does it undisturbed.
    let again = api.trained(&long_job("again"));
    assert_eq!(again["attempt"], 1);
    assert_eq!((published(&sleeper), published(&other)), (vec![text(&again["id"])], vec![id.clone()]));
    let adapters: BTreeSet<String> = all(&api, "/adapters").iter().map(|adapter| text(&adapter["job_id"])).collect();
    assert_eq!(adapters, BTreeSet::from([id.clone(), text(&again["id"])]));

    assert_eq!(version(&api, "questions"), version(&api, "again"));
    assert_eq!(job["metrics"], again["metrics"]);
    assert_eq!(metrics_rows(&api, &id), metrics_rows(&api, &text(&again["id"])));
    assert!(sleeper.terminate().0.success());
    let left = std::fs::read_dir(house.setup.data().join("checkpoints")).unwrap().count();
    assert_eq!(left, 0, "a checkpoint was left, or made anew");
    drop(api);
    house.end();
}

#[derive(PartialEq)]
enum Wake {
    WhileTheOtherTrains,
    AfterTheOtherHasPublished,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

fn version(app: &App, adapter: &str) -> String {
    text(&app.get(&format!("/adapters/{adapter}")).json()["version"])
}

#[test]
fn a_worker_that_wakes_while_another_does_its_job_publishes_nothing_and_goes_on() {
    a_worker_sleeps_through_its_lease(Wake::WhileTheOtherTrains);
}

#[test]
fn a_worker_that_wakes_after_another_did_its_job_publishes_nothing_and_goes_on() {
    a_worker_sleeps_through_its_lease(Wake::AfterTheOtherHasPublished);
}

#[test]
fn two_workers_share_many_jobs_and_each_is_done_once() {
    const JOBS: u64 = 200;
    let house = House::new();
    let api = house.start("api", &[]);
    let mut workers = ["first", "second"].map(|_| house.start("worker", &["--poll", "50ms"]));
    let started = std::time::Instant::now();
    let job = |seed| small_job(12, json!({"hyperparameters": {"epochs": 1, "max_steps": 3, "seed": seed}}));
    let jobs: BTreeSet<String> = (0..JOBS).map(|seed| api.train(&job(seed))).collect();
    for id in &jobs {
        let job = api.wait(id);
        assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job:#}");
    }
    println!("{JOBS} jobs by two workers in {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(api.get("/jobs?limit=1&status=succeeded").json()["data"].as_array().unwrap().len(), 1);

    let adapters = all(&api, "/adapters");
    assert_eq!(adapters.len() as u64, JOBS);
    assert_eq!(adapters.iter().map(|adapter| text(&adapter["job_id"])).collect::<BTreeSet<_>>(), jobs);
    let versions: BTreeSet<String> = adapters.iter().map(|adapter| text(&adapter["version"])).collect();
    assert_eq!(versions.len() as u64, JOBS, "each has a seed of its own");

    workers.iter_mut().for_each(|worker| assert!(worker.terminate().0.success()));
    let shares = workers.each_ref().map(published);
    println!("shares: {} and {}", shares[0].len(), shares[1].len());
    assert!(shares.iter().all(|share| share.len() as u64 >= JOBS / 10), "one of the workers was idle");
    assert_eq!(shares.concat().len() as u64, JOBS);
    assert_eq!(shares.concat().into_iter().collect::<BTreeSet<_>>(), jobs);
    drop(api);
    house.end();
}
