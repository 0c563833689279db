//! A lost database, a full disk, and kills: requests get clear answers in time, and jobs end as if nothing had happened.

use crate::api::fault_injection::{assert_nothing_is_left, life_of_an_adapter, preload_faults, until_answered};
use crate::api::job_traces::{JobResult, is_soak, long_job, uninterrupted_result};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess, small_job};
use crate::support::database::Database;
use crate::support::preload::ENOSPC;
use crate::support::tcp_proxy::TcpProxy;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Time limit of every answer while the database is away.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// A server on Postgres behind a proxy.
struct Proxied {
    proxy: TcpProxy,
    setup: ServerConfig,
    database: Database,
    runtime: tokio::runtime::Runtime,
}

impl Proxied {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let database = runtime.block_on(Database::postgres());
        let (start, rest) = database.url().split_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let proxy = TcpProxy::start(server);
        let url = format!("{start}@{}/{name}", proxy.address);
        let setup = ServerConfig::new().with_database(url).with_arguments(&[
            "--checkpoint-interval",
            "20ms",
            "--heartbeat-interval",
            "100ms",
            "--lease-duration",
            "2s",
            "--poll-interval",
            "100ms",
            "--retention-interval",
            "200ms",
        ]);
        Self { proxy, setup, database, runtime }
    }

    fn drop_database(self) {
        self.runtime.block_on(self.database.drop_database());
    }
}

fn timed(call: impl FnOnce() -> HttpResponse) -> (HttpResponse, Duration) {
    let started = Instant::now();
    (call(), started.elapsed())
}

#[test]
fn requests_are_answered_in_time_while_the_database_is_away() {
    let server = Proxied::new();
    let app = server.setup.start();
    app.train_to_success(&small_job(30, json!({"name": "resident", "hyperparameters": {"epochs": 1}})));
    let predict = || app.post("/predict?adapter=resident", &json!({"inputs": ["where is my card"]}));
    let expected = predict().json();
    assert_eq!(app.get("/metrics").status, 200);
    server.proxy.cut();
    // Older than a fresh name.
    std::thread::sleep(Duration::from_millis(1200));
    for round in 0..8 {
        let (response, time) = timed(predict);
        assert_eq!(response.status, 200, "round {round}: {}", response.text());
        assert_eq!(response.json(), expected);
        assert!(time < ANSWER_LIMIT, "round {round}: a prediction of a resident adapter took {time:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let calls: [(&str, &dyn Fn() -> HttpResponse); 4] = [
        ("GET /jobs", &|| app.get("/jobs")),
        ("POST /jobs", &|| app.post("/jobs", &small_job(30, json!({})))),
        ("an unknown name", &|| app.post("/predict?adapter=other", &json!({"inputs": ["a"]}))),
        ("GET /health/ready", &|| app.get("/health/ready")),
    ];
    for (name, call) in calls {
        let (response, time) = timed(call);
        assert_eq!(response.status, 503, "{name}: {}", response.text());
        assert!(response.header("retry-after").is_some(), "{name}");
        assert!(time < ANSWER_LIMIT + Duration::from_millis(200), "{name} took {time:?}");
    }
    let (metrics, time) = timed(|| app.get("/metrics"));
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("espalier_jobs{status=\"succeeded\"} 1"), "{}", metrics.text());
    assert!(time < Duration::from_millis(500), "metrics took {time:?}");
    server.proxy.restore();
    let (response, time) = timed(|| until_answered(&app, || app.get("/jobs")));
    assert_eq!(response.status, 200);
    assert!(time < Duration::from_secs(5), "the database was used again after {time:?}");
    assert_eq!(predict().json(), expected);
    drop(app);
    server.drop_database();
}

#[test]
fn server_survives_a_closed_database_connection() {
    let server = Proxied::new();
    let app = server.setup.start();
    life_of_an_adapter(&app);
    let mut runs = 0;
    let stride = if is_soak() { 1 } else { 37 };
    for number in (1..).step_by(stride) {
        server.proxy.close_at_message(number);
        life_of_an_adapter(&app);
        let failures = server.proxy.failures();
        server.proxy.close_at_message(0);
        assert_nothing_is_left(&app);
        if failures == 0 {
            break;
        }
        runs += 1;
    }
    println!("{runs} runs with a closed connection");
    assert!(runs > 2, "only {runs} runs met a closed connection");
    drop(app);
    server.drop_database();
}

/// Kills within two seconds of each start, a full disk, and a lost database do not fail the job and do not change its adapter.
#[test]
fn job_survives_quick_kills_a_full_disk_and_a_lost_database() {
    let (expected, _) = uninterrupted_result();
    let (kills, full_disk, lost_database) = match is_soak() {
        true => (20, Duration::from_secs(300), Duration::from_secs(60)),
        false => (6, Duration::from_secs(5), Duration::from_secs(4)),
    };
    let server = Proxied::new();
    let (setup, faults) = preload_faults(server.setup.clone());
    let mut app = setup.start();
    let id = app.submit_job(&long_job());
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(300 * (kill % 6)));
        app = app.kill_and_restart();
    }
    faults.set(1, u64::MAX, ENOSPC);
    std::thread::sleep(full_disk);
    faults.set(0, 0, 0);
    server.proxy.cut();
    std::thread::sleep(lost_database);
    server.proxy.restore();
    until_answered(&app, || app.get(&format!("/jobs/{id}")));
    assert_job_ends(&app, &id, expected);
    drop(app);
    server.drop_database();
}

fn assert_job_ends(app: &ServerProcess, id: &str, expected: &JobResult) {
    let path = format!("/jobs/{id}");
    crate::api::kill_points::wait_until("the end of the job", || {
        let job: Value = app.get(&path).json();
        job["status"] == "succeeded" || job["status"] == "failed"
    });
    assert_eq!(&JobResult::wait_for_result(app, id), expected);
}
