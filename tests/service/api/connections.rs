//! Tests of the limit on connections, their time limits, and requests whose head is refused.

use crate::api::server_process::{ServerConfig, ServerProcess};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const GET_JOBS: &str = "GET /jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn connect(app: &ServerProcess) -> TcpStream {
    let stream = TcpStream::connect(app.url("").trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends bytes and reads until the server closes the connection.
fn exchange(app: &ServerProcess, request: &[u8]) -> String {
    let mut stream = connect(app);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Opens connections, every other one with part of a request.
fn open_idle(app: &ServerProcess, count: usize) -> Vec<TcpStream> {
    let open = |index: usize| {
        let mut stream = connect(app);
        if index.is_multiple_of(2) {
            stream.write_all(b"GET /jobs HTTP/1.1\r\nhost").unwrap();
        }
        stream
    };
    (0..count).map(open).collect()
}

fn assert_answered_within_a_second(app: &ServerProcess) {
    let started = Instant::now();
    let answer = exchange(app, GET_JOBS.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let app = ServerConfig::new().with_arguments(&["--max-connections", "20"]).start();
    let idle = open_idle(&app, 100);
    assert_answered_within_a_second(&app);
    drop(idle);
}

/// The limit on open files of the running process is lowered, so that accepting a connection fails (EMFILE).
#[test]
fn connection_is_accepted_when_no_file_descriptor_is_free() {
    let app = ServerConfig::new().with_arguments(&["--max-connections", "500"]).start();
    let open_files = std::fs::read_dir(format!("/proc/{}/fd", app.pid())).unwrap().count() as u64 + 20;
    let limit = Rlimit { current: Some(open_files), maximum: Some(open_files) };
    prlimit(Pid::from_raw(app.pid()), Resource::Nofile, limit).unwrap();
    let idle = open_idle(&app, 100);
    assert_answered_within_a_second(&app);
    let failures = app.log().iter().filter(|line| line.contains("accepting a connection failed")).count();
    assert!((1..=2).contains(&failures), "{failures} log lines");
    drop(idle);
}

#[test]
fn connection_beyond_busy_ones_gets_503() {
    let app = ServerConfig::new().with_arguments(&["--max-connections", "3"]).start();
    let upload = "POST /datasets HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\ncontent-length: 100\r\n\r\na";
    let mut busy: Vec<TcpStream> = Vec::new();
    for count in 1..=3 {
        let mut stream = connect(&app);
        stream.write_all(upload.as_bytes()).unwrap();
        busy.push(stream);
        // An upload is in flight when its temporary file exists.
        let temporary = app.setup.data_dir().join("temporary");
        let uploads = || {
            let folders = std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path());
            folders.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap()).count()
        };
        while uploads() < count {
            std::thread::yield_now();
        }
    }
    let answer = exchange(&app, GET_JOBS.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("too_many_connections"), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    let health = exchange(&app, b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("connection: close"), "{health}");
    busy.pop();
    // The server closes the connection of the disconnected client at some time.
    while !exchange(&app, GET_JOBS.as_bytes()).starts_with("HTTP/1.1 200") {
        std::thread::yield_now();
    }
}

#[test]
fn slow_head_gets_408() {
    let app = ServerConfig::new().with_arguments(&["--header-timeout", "200ms"]).start();
    let started = Instant::now();
    let answer = exchange(&app, b"GET /jobs HTTP/1.1\r\nhost: local");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("--header-timeout"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn idle_connection_is_closed_after_the_keep_alive_timeout() {
    let app = ServerConfig::new().with_arguments(&["--keep-alive-timeout", "200ms"]).start();
    let answer = exchange(&app, b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with('}'), "{answer}");
}

#[test]
fn client_that_does_not_read_is_disconnected() {
    let app = ServerConfig::new().with_arguments(&["--write-timeout", "200ms", "--log-level", "debug"]).start();
    let mut stream = connect(&app);
    let requests = 1000;
    for _ in 0..requests {
        stream.write_all(b"GET /openapi.yaml HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    }
    app.wait_for_log("the client does not read the response");
}

/// Status, content type and body of a response whose connection is closed.
fn refused(answer: &str) -> (u16, String, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    assert!(head.contains("connection: close") && head.contains("x-request-id: "), "{answer}");
    (status, content_type.to_string(), serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}")))
}

#[test]
fn refused_head_gets_a_problem() {
    let app = ServerConfig::new().with_arguments(&["--max-headers", "8KiB"]).start();
    let get = "GET /jobs HTTP/1.1\r\nhost: localhost\r\n";
    let post = "POST /jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let long = "x".repeat(9000);
    for (name, request, status, code) in [
        ("too many bytes", format!("{get}long: {long}\r\n\r\n"), 431, "headers_too_large"),
        ("too many bytes without an end", format!("{get}long: {long}"), 431, "headers_too_large"),
        ("too many fields", format!("{get}{}\r\n", "a: b\r\n".repeat(101)), 431, "headers_too_large"),
        ("a long URI", format!("GET /jobs?name={long} HTTP/1.1\r\nhost: localhost\r\n\r\n"), 414, "uri_too_long"),
        ("a megabyte", format!("{get}long: {}\r\n\r\n", "x".repeat(1 << 20)), 431, "headers_too_large"),
        ("no HTTP", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_string(), 400, "malformed_request"),
        ("a wrong field name", format!("{get}bad name: 1\r\n\r\n"), 400, "malformed_request"),
        ("another version", "GET /jobs HTTP/3.0\r\nhost: localhost\r\n\r\n".to_string(), 400, "malformed_request"),
        ("no host", "GET /jobs HTTP/1.1\r\n\r\n".to_string(), 400, "malformed_request"),
        (
            "a length and chunks",
            format!("{post}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
            400,
            "malformed_request",
        ),
        (
            "chunks and a length",
            format!("{post}transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
            400,
            "malformed_request",
        ),
        ("a wrong length", format!("{post}content-length: two\r\n\r\n{{}}"), 400, "malformed_request"),
        ("two lengths", format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), 400, "malformed_request"),
    ] {
        let (got, content_type, problem) = refused(&exchange(&app, request.as_bytes()));
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{name}: {problem}");
        assert_eq!(content_type, "application/problem+json", "{name}");
    }
    let openai = get.replace("/jobs", "/v1/models");
    let (status, content_type, error) = refused(&exchange(&app, format!("{openai}bad name: 1\r\n\r\n").as_bytes()));
    assert_eq!((status, content_type.as_str()), (400, "application/json"));
    assert_eq!(error["error"]["code"], "malformed_request");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let app = ServerConfig::new().start();
    let body = "{\"inputs\": [\"where is my card\"]}";
    let post = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let (half, rest) = body.split_at(7);
    let requests = format!(
        "{post}content-length: {}\r\n\r\n{body}\r\n{post}transfer-encoding: chunked\r\n\r\n7\r\n{half}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n\
         GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\nGET /jobs HTTP/1.1\r\nbad\r\n\r\n",
        body.len(),
        rest.len()
    );
    for part_size in [1, 7, 64, 4096] {
        let mut stream = connect(&app);
        for part in requests.as_bytes().chunks(part_size) {
            stream.write_all(part).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect();
        assert_eq!(statuses, ["200", "200", "200", "400"], "in parts of {part_size} bytes: {answer}");
        let embeddings = answer.matches("\"embedding\"").count();
        assert_eq!(embeddings, 2, "{answer}");
    }
}
