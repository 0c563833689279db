//! Tests of validation without storage, interrupted uploads, event streams, pagination, keys and shutdown.

use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

const GOOD: &[u8] =
    b"text,label\nwhere is my card,card\nmy card is late,card\ni lost my pin,pin\nthe pin is wrong,pin\n";
const BAD: &[u8] = b"text,label\n,card\nno label\n";

/// Dataset files and temporary files in the data folder.
fn stored_rows(app: &ServerProcess) -> Vec<String> {
    let data = app.setup.data_dir();
    let own = std::fs::read_dir(data.join("temporary")).unwrap().map(|entry| entry.unwrap().path());
    let folders = own.chain([data.join("datasets"), data.join("adapters")]);
    folders
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect()
}

fn assert_nothing_stored(app: &ServerProcess) {
    assert_eq!(stored_rows(app), [""; 0]);
    assert_eq!(app.get("/datasets").json()["data"], json!([]));
    assert_eq!(app.get("/jobs").json()["data"], json!([]));
}

#[test]
fn validate_only_returns_the_report_and_stores_nothing() {
    let app = ServerConfig::new().start();
    let answer = app.post_file("/jobs?validate_only=true", ("job", &json!({})), ("dataset", "a.csv", GOOD));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["report"]["examples"], &answer["spec"]["labels"]), (&json!(4), &json!(["card", "pin"])));
    assert_nothing_stored(&app);
}

#[test]
fn rejected_job_or_dataset_stores_nothing() {
    let app = ServerConfig::new().start();
    let wrong = json!({"method": {"type": "lora", "rank": 1_000_000}});
    for (answer, pointer) in [
        (app.post_file("/jobs", ("job", &json!({})), ("dataset", "a.csv", BAD)), None),
        (app.post_file("/jobs", ("job", &wrong), ("dataset", "a.csv", GOOD)), Some("/method/rank")),
        (app.post_file("/datasets", ("options", &json!({})), ("dataset", "a.csv", BAD)), None),
        (app.post_file("/adapters", ("options", &json!({})), ("adapter", "a.zip", GOOD)), None),
        (app.post("/jobs", &json!({"examples": [{"text": "a", "label": ""}]})), Some("/examples/0")),
    ] {
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let errors = answer.json()["errors"].clone();
        assert!(pointer.is_none_or(|pointer| errors[0]["pointer"] == pointer), "{errors:#}");
    }
    assert_nothing_stored(&app);
}

/// Sends the headers of an upload and the first half of its body.
fn start_partial_upload(app: &ServerProcess) -> TcpStream {
    let address = app.url("").strip_prefix("http://").unwrap().to_string();
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = "POST /datasets?file_name=a.csv HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n", 2 * GOOD.len()).unwrap();
    stream.write_all(GOOD).unwrap();
    stream
}

#[test]
fn client_disconnect_during_upload_stores_nothing() {
    let app = ServerConfig::new().start();
    let stream = start_partial_upload(&app);
    while stored_rows(&app).is_empty() {
        std::thread::yield_now();
    }
    drop(stream);
    while !stored_rows(&app).is_empty() {
        std::thread::yield_now();
    }
    assert_nothing_stored(&app);
}

#[test]
fn stalled_upload_gets_408() {
    let app = ServerConfig::new().with_arguments(&["--read-timeout", "100ms"]).start();
    let mut answer = String::new();
    start_partial_upload(&app).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    assert_nothing_stored(&app);
}

#[test]
fn dataset_is_stored_once_and_used_by_id() {
    let app = ServerConfig::new().start();
    let examples = small_job(60, json!({}))["examples"].as_array().unwrap().clone();
    let lines: String = examples.iter().map(|example| format!("{example}\n")).collect();
    let upload = || app.post_bytes("/datasets?file_name=a.jsonl", "application/octet-stream", lines.as_bytes());
    let (first, second) = (upload(), upload());
    assert_eq!((first.status, second.status), (201, 200));
    let id = first.json()["id"].as_str().unwrap().to_string();
    assert_eq!(second.json()["id"], id.as_str());
    assert_eq!(app.get("/datasets").json()["data"].as_array().unwrap().len(), 1);

    let few = json!({"epochs": 1});
    let job =
        app.train_to_success(&json!({"dataset_id": id, "hyperparameters": few, "validation": {"dataset_id": id}}));
    assert_eq!(job["dataset"]["id"], id.as_str());
    // A job that reads the dataset with other options validates it again.
    let reread = app.post("/jobs", &json!({"dataset_id": id, "columns": {"label": "category"}}));
    assert_eq!((reread.status, &reread.json()["errors"][0]["line"]), (422, &json!(1)));

    assert_eq!(app.delete(&format!("/datasets/{id}")).status, 204);
    assert_eq!(app.get(&format!("/datasets/{id}")).status, 404);
    assert_eq!(app.get(&format!("/jobs/{}", job["id"].as_str().unwrap())).json()["dataset"], Value::Null);
}

#[test]
fn event_stream_resumes_after_last_event_id() {
    let app = ServerConfig::new().start();
    let job = app.train_to_success(&small_job(60, json!({"hyperparameters": {"epochs": 2}})));
    let path = format!("/jobs/{}/events", job["id"].as_str().unwrap());
    let ids = |last: i64| -> Vec<i64> {
        let request = app.agent().get(app.url(&path)).header("last-event-id", last.to_string());
        let text = request.call().unwrap().into_body().read_to_string().unwrap();
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect()
    };
    let all = ids(0);
    assert!(all.len() > 3 && all.is_sorted(), "{all:?}");
    assert_eq!(ids(all[1]), all[2..]);

    let listed = app.agent().get(app.url(&path)).header("accept", "application/json").call().unwrap();
    let listed: Value = serde_json::from_str(&listed.into_body().read_to_string().unwrap()).unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), all.len());
    assert_eq!(listed["next"], Value::Null, "the job is over");
    assert_eq!(listed["data"].as_array().unwrap().last().unwrap()["data"]["status"], "succeeded");

    let end = app.get(&format!("{path}?after={}", all[all.len() - 1]));
    assert_eq!(end.status, 204, "which ends a browser's reconnecting");
}

#[test]
fn list_is_paginated() {
    let app = ServerConfig::new().with_arguments(&["--role", "api"]).start();
    let mut ids: Vec<String> = (0..5).map(|_| app.submit_job(&small_job(20, json!({})))).collect();
    ids.reverse();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("/jobs?limit=2&status=queued{after}")).json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_string()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ids);
    assert_eq!(app.get(&format!("/jobs/{}", ids[0])).json()["queue_position"], 4);
}

#[test]
fn full_job_queue_gets_503_with_retry_after() {
    let app = ServerConfig::new().with_arguments(&["--role", "api", "--max-queued-jobs", "1"]).start();
    app.submit_job(&small_job(20, json!({})));
    let before = app.get("/datasets").json();
    let answer = app.post_file("/jobs", ("job", &json!({})), ("dataset", "a.csv", GOOD));
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{}", answer.text());
    assert_eq!(app.get("/datasets").json(), before, "the dataset of the refused job is gone");
}

#[test]
fn only_health_and_docs_are_public() {
    let app =
        ServerConfig::new().with_arguments(&["--api-keys", "the-first-of-the-keys,the-second-of-the-keys"]).start();
    for path in ["/jobs", "/datasets", "/adapters", "/base", "/metrics"] {
        let answer = app.get(path);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("key_missing")), "{path}");
        let known =
            app.agent().get(app.url(path)).header("authorization", "Bearer the-second-of-the-keys").call().unwrap();
        assert_eq!(known.status(), 200, "{path}");
    }
    for path in ["/health/live", "/health/ready", "/openapi.yaml", "/docs/"] {
        assert_eq!(app.get(path).status, 200, "{path}");
    }
}

#[test]
fn shutdown_ends_event_streams_and_finishes_requests() {
    let mut app = ServerConfig::new().start();
    let id = app.submit_job(&small_job(60, json!({"hyperparameters": {"epochs": 50_000}})));
    app.wait_for_progress(&id);
    let url = app.url(&format!("/jobs/{id}/events"));
    let agent = app.agent().clone();
    let open = |_| {
        let body = agent.get(&url).header("accept", "text/event-stream").call().unwrap().into_body();
        let (mut stream, mut begun) = (BufReader::new(body.into_reader()), String::new());
        // Signals before the shutdown, which could otherwise precede the first event.
        while !begun.contains("event: status") {
            assert!(stream.read_line(&mut begun).unwrap() > 0, "{begun}");
        }
        stream
    };
    let streams: Vec<_> = (0..20).map(open).collect();
    let (status, took) = app.terminate();
    assert!(status.success(), "{status}");
    assert!(took.as_secs() < 10, "{took:?}");
    for mut stream in streams {
        stream.read_to_string(&mut String::new()).expect("a stream ends, it does not break");
    }
}
