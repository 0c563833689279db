//! SIGTERM: everything that was begun is finished or handed back, in time.

use crate::api::job_traces::{JobResult, assert_clean_after_delete, is_soak, long_job, uninterrupted_result};
use crate::api::kill_points::checkpoint_steps;
use crate::api::raw_http::{Connection, RawHttpClient, RequestOutcome};
use crate::api::server_process::{ServerConfig, ServerProcess, TIMEOUT, small_job};
use serde_json::{Value, json};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

const STREAMS: usize = 20;
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// The one checkpoint after step 0 is the one of the stop; the log says at which step each attempt begins.
const RARE_CHECKPOINTS: [&str; 6] =
    ["--checkpoint-interval", "1h", "--heartbeat-interval", "100ms", "--log-level", "debug"];

/// What the clients of a server that stops have seen.
#[derive(Default)]
struct LoadResult {
    statuses: Vec<(&'static str, u16)>,
    /// Ids of requests that got no whole answer.
    lost: Vec<String>,
}

#[test]
fn graceful_shutdown_completes_requests_and_checkpoints_the_job() {
    let (expected, _) = uninterrupted_result();
    let mut app = ServerConfig::new().with_arguments(&RARE_CHECKPOINTS).start();
    app.train_to_success(&small_job(30, json!({"name": "asked", "hyperparameters": {"epochs": 1}})));
    let asked = app.get("/adapters/asked").json()["id"].as_str().unwrap().to_string();
    let id = app.submit_job(&long_job());
    app.wait_for_progress(&id);
    let (seen, last, stopped) = stop_under_load(&mut app, &id);
    assert!(stopped < SHUTDOWN_DEADLINE, "stopped after {stopped:?}");
    assert_nothing_was_lost(&app, &seen);
    assert!(seen.statuses.contains(&("/health/ready", 503)), "nobody saw that it was not ready any more");
    let count = |path| seen.statuses.iter().filter(|(asked, _)| *asked == path).count();
    println!("stopped after {stopped:?}; {} predictions; {} resets", count("/predict?adapter=asked"), seen.lost.len());
    let saved = *checkpoint_steps(&app.setup.data_dir(), &id).last().unwrap();
    assert!(saved >= last && saved > 0, "the job was at step {last}, its checkpoint is of {saved}");
    let app = app.setup.start();
    let line: Value = serde_json::from_str(&app.wait_for_log_since_start("training resumes")).unwrap();
    assert_eq!(line["step"], saved);
    assert_eq!(&JobResult::wait_for_result(&app, &id), expected);
    assert_eq!(app.get(&format!("/jobs/{id}")).json()["attempt"], 2);
    assert_eq!(app.delete(&format!("/adapters/{asked}")).status, 204);
    assert_eq!(app.get("/adapters").json()["data"].as_array().unwrap().len(), 1);
}

/// Twenty open streams, clients that keep their connection and clients that do not; then SIGTERM. Answers what the
/// clients saw, the last step that a stream told of, and how long the stop took.
fn stop_under_load(app: &mut ServerProcess, id: &str) -> (LoadResult, u64, Duration) {
    let (answered, opened) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (url, events, agent, pid) =
        (app.url(""), app.url(&format!("/jobs/{id}/events")), app.agent().clone(), app.pid());
    thread::scope(|scope| {
        let streams: Vec<ScopedJoinHandle<u64>> =
            (0..STREAMS).map(|_| scope.spawn(|| stream(&agent, &events, &opened))).collect();
        let clients: Vec<ScopedJoinHandle<LoadResult>> = (0..6)
            .map(|client| {
                let (url, answered) = (&url, &answered);
                scope.spawn(move || predict_until_refused(url, client, answered))
            })
            .collect();
        let requests = if is_soak() { 2000 } else { 60 };
        crate::api::kill_points::wait_until("twenty streams and some answers", || {
            opened.load(Ordering::Relaxed) == STREAMS && answered.load(Ordering::Relaxed) >= requests
        });
        let started = Instant::now();
        assert!(std::process::Command::new("kill").args(["-15", &pid.to_string()]).status().unwrap().success());
        let status = app.wait_for_exit();
        let stopped = started.elapsed();
        assert_eq!(status.code(), Some(0), "{status}");
        let last = streams.into_iter().map(|stream| stream.join().unwrap()).max().unwrap();
        let mut seen = LoadResult::default();
        for client in clients {
            let one = client.join().unwrap();
            seen.statuses.extend(one.statuses);
            seen.lost.extend(one.lost);
        }
        (seen, last, stopped)
    })
}

/// Reads to the end, which must be a proper one; answers the last step that was told.
fn stream(agent: &ureq::Agent, url: &str, opened: &AtomicUsize) -> u64 {
    let answer = agent.get(url).header("accept", "text/event-stream").call().unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    opened.fetch_add(1, Ordering::Relaxed);
    let mut text = String::new();
    answer.into_body().into_reader().read_to_string(&mut text).expect("the stream ends, it does not break");
    assert!(text.ends_with("\n\n"), "an event was cut in the middle: {text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let steps = data.filter_map(|data| serde_json::from_str::<Value>(data).ok()?["total_steps"].as_u64().map(|_| data));
    let steps = steps.filter_map(|data| serde_json::from_str::<Value>(data).ok()?["step"].as_u64());
    steps.max().unwrap_or(0)
}

/// Even clients keep their connection. The first two ask whether the server is ready.
fn predict_until_refused(url: &str, client: usize, answered: &AtomicUsize) -> LoadResult {
    let (mut wire, mut seen) = (RawHttpClient::new(url), LoadResult::default());
    let started = Instant::now();
    for count in 0.. {
        assert!(started.elapsed() < TIMEOUT);
        let request = format!("client-{client}-request-{count}");
        let (path, fate) = match client {
            0 | 1 => ("/health/ready", wire.get("/health/ready", &request)),
            _ => {
                let body = json!({"inputs": [format!("when will my card number {count} arrive")]}).to_string();
                ("/predict?adapter=asked", wire.post("/predict?adapter=asked", &request, &body))
            }
        };
        match fate {
            RequestOutcome::ConnectionRefused => break,
            RequestOutcome::Response { status, .. } => seen.statuses.push((path, status)),
            RequestOutcome::Aborted { why, on } => {
                println!("{request}: {why}");
                assert_eq!(on, Connection::New, "{request} was sent on a connection that was not said to end: {why}");
                seen.lost.push(request);
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
        if client % 2 == 1 {
            wire.close();
        }
    }
    seen
}

/// Every answer is whole and good. The system may reset a connection that the server never had; but no request that the
/// server has seen is without its answer.
fn assert_nothing_was_lost(app: &ServerProcess, seen: &LoadResult) {
    for (path, status) in &seen.statuses {
        let may_be = if *path == "/health/ready" { [200, 503] } else { [200, 200] };
        assert!(may_be.contains(status), "{path} was answered {status}");
    }
    let log = app.log();
    for id in &seen.lost {
        assert!(!log.iter().any(|line| line.contains(&format!("\"{id}\""))), "{id} was taken and not answered");
    }
    assert!(!log.iter().any(|line| line.contains("cut off")), "requests were cut off");
}

#[test]
fn second_signal_exits_immediately() {
    let (expected, _) = uninterrupted_result();
    let mut app = ServerConfig::new().with_arguments(&RARE_CHECKPOINTS).start();
    let id = app.submit_job(&long_job());
    app.wait_for_progress(&id);
    // A request whose body does not come would hold the server up for its whole grace.
    let mut wire = RawHttpClient::new(&app.url(""));
    wire.send("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        .unwrap();
    app.signal(15);
    app.wait_for_log("a second signal ends at once");
    app.wait_for_log("attempt stopped");
    let started = Instant::now();
    app.signal(15);
    assert_eq!(app.wait_for_exit().code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(2), "ended after {:?}", started.elapsed());
    let app = app.setup.start();
    assert_eq!(&JobResult::wait_for_result(&app, &id), expected);
    assert_clean_after_delete(app, &expected.version);
}
