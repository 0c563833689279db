//! Tests of SIGTERM: requests in flight complete and running jobs are requeued within the shutdown deadline.

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
/// Makes checkpoints rare after the first seconds; the debug log has the first step of each attempt.
const RARE_CHECKPOINTS: [&str; 6] =
    ["--checkpoint-interval", "1h", "--heartbeat-interval", "100ms", "--log-level", "debug"];

/// Responses that the clients received during shutdown.
#[derive(Default)]
struct LoadResult {
    statuses: Vec<(&'static str, u16)>,
    /// Ids of requests without a complete response.
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
    assert!(seen.statuses.contains(&("/health/ready", 503)), "no client saw a failed readiness check");
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

/// Sends SIGTERM while twenty event streams are open and clients with and without kept-alive connections send requests. Returns
/// the clients' results, the last step reported by a stream, and the duration of the shutdown.
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

/// Reads a stream to its end, which must not be inside an event, and returns the last reported step.
fn stream(agent: &ureq::Agent, url: &str, opened: &AtomicUsize) -> u64 {
    let answer = agent.get(url).header("accept", "text/event-stream").call().unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    opened.fetch_add(1, Ordering::Relaxed);
    let mut text = String::new();
    answer.into_body().into_reader().read_to_string(&mut text).expect("the stream ends without an error");
    assert!(text.ends_with("\n\n"), "the stream ended inside an event: {text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let steps = data.filter_map(|data| serde_json::from_str::<Value>(data).ok()?["total_steps"].as_u64().map(|_| data));
    let steps = steps.filter_map(|data| serde_json::from_str::<Value>(data).ok()?["step"].as_u64());
    steps.max().unwrap_or(0)
}

/// Clients with an even number keep their connection. The first two poll the readiness check.
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
            RequestOutcome::Aborted { reason, on } => {
                println!("{request}: {reason}");
                assert_eq!(
                    on,
                    Connection::New,
                    "{request} was sent on a kept-alive connection that the server closed: {reason}"
                );
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

/// Checks that every response is complete and successful. The operating system may reset a connection that the server never
/// accepted, but every request that the server logged must have its response.
fn assert_nothing_was_lost(app: &ServerProcess, seen: &LoadResult) {
    for (path, status) in &seen.statuses {
        let may_be = if *path == "/health/ready" { [200, 503] } else { [200, 200] };
        assert!(may_be.contains(status), "{path} was answered {status}");
    }
    let log = app.log();
    for id in &seen.lost {
        assert!(
            !log.iter().any(|line| line.contains(&format!("\"{id}\""))),
            "request {id} was received and not answered"
        );
    }
    assert!(!log.iter().any(|line| line.contains("requests aborted")), "requests were aborted");
}

#[test]
fn second_signal_exits_immediately() {
    let (expected, _) = uninterrupted_result();
    let mut app = ServerConfig::new().with_arguments(&RARE_CHECKPOINTS).start();
    let id = app.submit_job(&long_job());
    app.wait_for_progress(&id);
    // A request without its body would delay the shutdown until the shutdown timeout.
    let mut wire = RawHttpClient::new(&app.url(""));
    wire.send(
        "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    )
    .unwrap();
    app.signal(15);
    app.wait_for_log("a second signal exits at once");
    app.wait_for_log("attempt stopped");
    let started = Instant::now();
    app.signal(15);
    assert_eq!(app.wait_for_exit().code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(2), "ended after {:?}", started.elapsed());
    let app = app.setup.start();
    assert_eq!(&JobResult::wait_for_result(&app, &id), expected);
    assert_clean_after_delete(app, &expected.version);
}
