//! Tests of SIGTERM during text generation: running generations finish, or every client gets a proper end before the shutdown
//! timeout.

use crate::api::generation::start_with_decoder;
use crate::api::kill_points::wait_until;
use crate::api::raw_http::{RawHttpClient, RequestOutcome};
use crate::api::server_process::{HttpResponse, ServerProcess};
use serde_json::{Value, json};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const STREAMS: usize = 50;
const PLAIN_REQUESTS: usize = 20;
/// Sequences of one request.
const SEQUENCES: usize = 16;

/// Request of one of the three generating endpoints: 16 sequences of 100 tokens that no end token cuts.
fn long_request(kind: usize, model: &str, is_streamed: bool) -> (&'static str, Value) {
    let (path, mut request) = match kind % 3 {
        0 => ("/generate", json!({"inputs": vec!["a"; SEQUENCES]})),
        1 => ("/v1/completions", json!({"model": model, "prompt": "a", "n": SEQUENCES})),
        _ => {
            let messages = json!([{"role": "user", "content": "a"}]);
            ("/v1/chat/completions", json!({"model": model, "messages": messages, "n": SEQUENCES}))
        }
    };
    let fields = json!({"max_tokens": 100, "stream": is_streamed, "logit_bias": {"0": -100.0, "3": -100.0}});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    (path, request)
}

fn error_code<'a>(path: &str, body: &'a Value) -> &'a Value {
    if path == "/generate" { &body["code"] } else { &body["error"]["code"] }
}

fn base_name(app: &ServerProcess) -> String {
    app.get("/base").json()["name"].as_str().unwrap().to_string()
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
enum StreamEnd {
    Complete,
    /// An error event with this code before `[DONE]`.
    Failed(String),
}

/// Reads a stream to its end, which must be `[DONE]`.
fn read_to_end(app_url: &str, agent: &ureq::Agent, request: (&str, Value), opened: &AtomicUsize) -> StreamEnd {
    let (path, body) = request;
    let post = agent.post(format!("{app_url}{path}")).header("content-type", "application/json");
    let response = post.send(body.to_string()).unwrap();
    assert_eq!(response.status().as_u16(), 200);
    opened.fetch_add(1, Ordering::Relaxed);
    let mut text = String::new();
    response.into_body().into_reader().read_to_string(&mut text).expect("the stream ends without an error");
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.last(), Some(&"[DONE]"), "{path} ended with {:?}", &text[text.len().saturating_sub(300)..]);
    let events: Vec<Value> = data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    match events.last().filter(|event| !event["error"].is_null()) {
        Some(event) => StreamEnd::Failed(error_code(path, event).as_str().unwrap().to_string()),
        None => {
            let finished =
                |event: &&Value| !event["finish_reason"].is_null() || !event["choices"][0]["finish_reason"].is_null();
            assert_eq!(events.iter().filter(finished).count(), SEQUENCES);
            StreamEnd::Complete
        }
    }
}

fn in_flight_requests(app: &ServerProcess) -> usize {
    let text = app.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with("espalier_http_requests_in_flight"));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn generations_that_do_not_finish_get_a_proper_end() {
    let timeout = Duration::from_secs(3);
    let flags = ["--shutdown-timeout", "3s", "--max-running-sequences", "4", "--max-queued-sequences", "5000"];
    let mut app = start_with_decoder("llama", &flags);
    let (url, agent, model) = (app.url(""), app.agent().clone(), base_name(&app));
    let opened = AtomicUsize::new(0);
    let (status, elapsed, streams, answers) = thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|kind| {
                let (url, agent, model, opened) = (&url, &agent, &model, &opened);
                scope.spawn(move || read_to_end(url, agent, long_request(kind, model, true), opened))
            })
            .collect();
        wait_until("every stream is open", || opened.load(Ordering::Relaxed) == STREAMS);
        let answers: Vec<_> = (0..PLAIN_REQUESTS)
            .map(|kind| {
                let (url, agent, model) = (&url, &agent, &model);
                scope.spawn(move || {
                    let (path, body) = long_request(kind, model, false);
                    let post = agent.post(format!("{url}{path}")).header("content-type", "application/json");
                    (path, HttpResponse::from_result(post.send(body.to_string())))
                })
            })
            .collect();
        // The request for the metrics is one of them.
        wait_until("every request is received", || in_flight_requests(&app) > PLAIN_REQUESTS);
        let (status, elapsed) = app.terminate();
        let streams: Vec<StreamEnd> = streams.into_iter().map(|stream| stream.join().unwrap()).collect();
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.join().unwrap()).collect();
        (status, elapsed, streams, answers)
    });
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(elapsed <= timeout, "stopped after {elapsed:?}");
    let failed = StreamEnd::Failed("shutting_down".to_string());
    assert!(streams.iter().all(|end| *end == failed || *end == StreamEnd::Complete), "{streams:?}");
    assert!(streams.contains(&failed), "the generations took less than the shutdown timeout");
    for (path, answer) in &answers {
        if answer.status != 200 {
            let code = error_code(path, &answer.json()).clone();
            assert_eq!((answer.status, code), (503, json!("shutting_down")), "{path}: {}", answer.text());
            assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
        }
    }
    assert!(answers.iter().any(|(_, answer)| answer.status == 503));
    println!("stopped after {elapsed:?}; {} streams were ended", streams.iter().filter(|end| **end == failed).count());
}

#[test]
fn running_generations_finish_and_new_ones_are_refused() {
    let mut app = start_with_decoder("llama", &["--shutdown-timeout", "60s", "--max-running-sequences", "2"]);
    let (url, agent, model) = (app.url(""), app.agent().clone(), base_name(&app));
    let opened = AtomicUsize::new(0);
    thread::scope(|scope| {
        let streams: Vec<_> = (0..6)
            .map(|kind| {
                let (url, agent, model, opened) = (&url, &agent, &model, &opened);
                scope.spawn(move || read_to_end(url, agent, long_request(kind, model, true), opened))
            })
            .collect();
        wait_until("every stream is open", || opened.load(Ordering::Relaxed) == 6);
        // These requests have arrived in part: the server waits for the last byte of their bodies.
        let late: Vec<(&str, RawHttpClient)> = (0..3)
            .map(|kind| {
                let (path, body) = long_request(kind, &model, kind == 0);
                let mut client = RawHttpClient::new(&url);
                let (length, start) = (body.to_string().len(), &body.to_string()[..body.to_string().len() - 1]);
                let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
                client.send(&format!("{head}content-length: {length}\r\n\r\n{start}")).unwrap();
                (path, client)
            })
            .collect();
        wait_until("the requests have arrived in part", || in_flight_requests(&app) > 3);
        app.signal(15);
        app.wait_for_log("shutting down");
        for (path, mut client) in late {
            let RequestOutcome::Response { status, body } = client.finish("}") else { panic!("no response") };
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, error_code(path, &body)), (503, &json!("shutting_down")), "{path}: {body}");
        }
        for stream in streams {
            assert_eq!(stream.join().unwrap(), StreamEnd::Complete);
        }
    });
    assert_eq!(app.wait_for_exit().code(), Some(0));
}
