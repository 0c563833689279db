//! Tests of malformed forms, oversized bodies and interrupted uploads.

use crate::api::error_cases::{assert_no_errors_logged, check_cases, error_case, server_state};
use crate::api::request::{bytes, form, parts};
use crate::api::server_process::{ServerConfig, ServerProcess, TIMEOUT};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const ROWS: &[u8] = b"text,label\na,x\nb,y\n";
const DATASET: &str = "content-disposition: form-data; name=\"dataset\"; filename=\"rows.csv\"";
const JOB: &str = "content-disposition: form-data; name=\"job\"";

#[test]
fn malformed_form_is_rejected_with_the_expected_parts() {
    let app = ServerConfig::new().start();
    let whole = "multipart/form-data; boundary=cut";
    let cut = format!("--cut\r\n{DATASET}\r\n\r\ntext,label\na,x\nb,");
    let job = |content: &[u8]| parts("/jobs", &[(JOB, content), (DATASET, ROWS)]);
    let strange = "content-disposition: form-data; name=\"file\"; filename=\"rows.csv\"";
    let json_first = |path: &str, body: &str| bytes(path, whole, body);
    check_cases(
        &app,
        vec![
            error_case("no parts", parts("/jobs", &[]), 422, "dataset_missing", "\"dataset\""),
            error_case("no parts for a dataset", parts("/datasets", &[]), 422, "dataset_missing", "add the file"),
            error_case("no parts for an adapter", parts("/adapters", &[]), 422, "adapter_missing", "add the zip"),
            error_case("a job alone", parts("/jobs", &[(JOB, b"{}")]), 422, "dataset_missing", "exactly one"),
            error_case(
                "options alone",
                parts("/datasets", &[("content-disposition: form-data; name=\"options\"", b"{}")]),
                422,
                "dataset_missing",
                "add the file",
            ),
            error_case(
                "an unknown part",
                parts("/jobs", &[(JOB, b"{}"), (strange, ROWS)]),
                422,
                "unexpected_part",
                "\"dataset\" (a file)",
            ),
            error_case(
                "an unknown part behind the file",
                parts("/jobs", &[(DATASET, ROWS), (strange, ROWS)]),
                422,
                "unexpected_part",
                "\"file\"",
            ),
            error_case(
                "a part twice",
                parts("/jobs", &[(DATASET, ROWS), (DATASET, ROWS)]),
                422,
                "unexpected_part",
                "repeated",
            ),
            error_case(
                "a part without a name",
                parts("/jobs", &[("content-disposition: form-data", ROWS)]),
                422,
                "unexpected_part",
                "\"job\" (JSON)",
            ),
            error_case(
                "a part that is no form's",
                parts("/jobs", &[("content-type: text/csv", ROWS)]),
                422,
                "unexpected_part",
                "\"dataset\"",
            ),
            error_case("a job that is no JSON", job(b"name: x"), 400, "malformed_json", "line 1"),
            error_case("an empty job", job(b""), 400, "malformed_json", "empty"),
            error_case(
                "a misspelt job behind the file",
                parts("/jobs", &[(DATASET, ROWS), (JOB, br#"{"nam": "x"}"#)]),
                422,
                "invalid_body",
                "`name`",
            )
            .with_pointer("/nam"),
            error_case(
                "a wrong job before the file",
                job(br#"{"hyperparameters": {"epochs": 0}}"#),
                422,
                "invalid_job",
                "epochs",
            )
            .with_pointer("/hyperparameters/epochs"),
            error_case("a file and examples", job(br#"{"examples": []}"#), 422, "dataset_missing", "exactly one"),
            error_case(
                "a file and a dataset",
                job(br#"{"dataset_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"}"#),
                422,
                "dataset_missing",
                "more than one",
            ),
            error_case(
                "no boundary",
                bytes("/jobs", "multipart/form-data", cut.as_bytes()),
                400,
                "malformed_form",
                "boundary",
            ),
            error_case(
                "another boundary",
                bytes("/jobs", "multipart/form-data; boundary=other", cut.as_bytes()),
                400,
                "malformed_form",
                "send it again",
            ),
            error_case("a form that is cut off", json_first("/jobs", &cut), 400, "malformed_form", "send it again"),
            error_case(
                "a dataset that is cut off",
                json_first("/datasets", &cut),
                400,
                "malformed_form",
                "send it again",
            ),
            error_case("an empty form", json_first("/jobs", ""), 400, "malformed_form", "send it again"),
        ],
    );
}

#[test]
fn oversized_body_is_rejected_with_the_limit() {
    let app = ServerConfig::new()
        .with_arguments(&["--max-json", "1000", "--max-dataset", "2000", "--max-adapter", "3000"])
        .start();
    let long = |bytes: usize| "x".repeat(bytes).into_bytes();
    let job = json!({"examples": [{"text": "x".repeat(1000), "label": "y"}]});
    let named = json!({"name": "x".repeat(1000)});
    let zip = ("adapter", "adapter.zip", &long(3001)[..]);
    check_cases(
        &app,
        vec![
            error_case("JSON", bytes("/jobs", "application/json", job.to_string()), 413, "too_large", "1000 bytes"),
            error_case(
                "the JSON of a form",
                form("/jobs", ("job", &named), ("dataset", "a.csv", ROWS)),
                413,
                "too_large",
                "\"job\"",
            ),
            error_case(
                "the file of a form",
                form("/jobs", ("job", &json!({})), ("dataset", "a.csv", &long(2001))),
                413,
                "too_large",
                "2000 bytes",
            ),
            error_case("a dataset", bytes("/datasets", "text/csv", long(2001)), 413, "too_large", "2000 bytes"),
            error_case("a zip", bytes("/adapters", "application/zip", long(3001)), 413, "too_large", "3000 bytes"),
            error_case(
                "a zip in a form",
                form("/adapters", ("options", &json!({})), zip),
                413,
                "too_large",
                "3000 bytes",
            ),
        ],
    );
}

/// Sends the beginning of an upload and returns its connection.
fn start_upload(app: &ServerProcess, head: &str, body: &[u8]) -> TcpStream {
    let address = app.url("").trim_start_matches("http://").to_string();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(format!("{head} HTTP/1.1\r\nhost: {address}\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

/// Polls until the number of temporary files is as expected.
fn wait_for_temporary_files(app: &ServerProcess, count: usize) {
    let started = Instant::now();
    let temporary = || {
        let files = server_state(app).into_iter().filter(|file| file.contains("/temporary/"));
        files.filter(|file| std::path::Path::new(file).is_file()).count()
    };
    while temporary() != count {
        assert!(started.elapsed() < TIMEOUT, "{:?}", server_state(app));
    }
}

const PARTIAL_UPLOADS: [(&str, &str); 4] = [
    (
        "POST /jobs",
        "content-type: multipart/form-data; boundary=cut\r\ncontent-length: 5000\r\n\r\n--cut\r\ncontent-disposition: form-data; name=\"dataset\"; filename=\"rows.csv\"\r\n\r\ntext,label\na,x\n",
    ),
    ("POST /datasets", "content-type: text/csv\r\ncontent-length: 5000\r\n\r\ntext,label\na,x\n"),
    ("POST /datasets", "content-type: text/csv\r\ntransfer-encoding: chunked\r\n\r\nF\r\ntext,label\na,x\n\r\n"),
    ("POST /adapters", "content-type: application/zip\r\ncontent-length: 5000\r\n\r\nPK\x03\x04"),
];

#[test]
fn client_disconnect_during_upload_stores_nothing() {
    let app = ServerConfig::new().start();
    let before = server_state(&app);
    for (head, body) in PARTIAL_UPLOADS {
        let stream = start_upload(&app, head, body.as_bytes());
        wait_for_temporary_files(&app, 1);
        drop(stream);
        wait_for_temporary_files(&app, 0);
        assert_eq!(server_state(&app), before, "{head}");
    }
    assert_no_errors_logged(&app);
}

#[test]
fn slow_upload_gets_408_and_stores_nothing() {
    let app = ServerConfig::new().with_arguments(&["--read-timeout", "100ms"]).start();
    let before = server_state(&app);
    let json = ("POST /predict", "content-type: application/json\r\ncontent-length: 5000\r\n\r\n{\"inputs\": [");
    for (head, body) in PARTIAL_UPLOADS.into_iter().chain([json]) {
        let mut stream = start_upload(&app, head, body.as_bytes());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{head}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("did not arrive"), "{head}: {answer}");
        assert_eq!(server_state(&app), before, "{head}");
    }
    assert_no_errors_logged(&app);
}

#[test]
fn body_below_the_minimum_rate_gets_408() {
    let app = ServerConfig::new().with_arguments(&["--read-timeout", "500ms", "--min-body-rate", "2000"]).start();
    let before = server_state(&app);
    let json = ("POST /predict", "content-type: application/json\r\ncontent-length: 5000\r\n\r\n{\"inputs\": [\"");
    for (head, body) in PARTIAL_UPLOADS.into_iter().filter(|(_, body)| !body.contains("chunked")).chain([json]) {
        let mut stream = start_upload(&app, head, body.as_bytes());
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (started, mut answer) = (Instant::now(), Vec::new());
        // One byte every 20 ms.
        loop {
            let mut part = [0; 4096];
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    // Fails when the server has closed the connection.
                    let _ = stream.write_all(b"x");
                }
                // The server closes the connection while the client is sending.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{head}: {error}"),
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{head}: {answer}");
        assert!(answer.contains("1000 bytes, the minimum, did not arrive within 0.5 seconds"), "{head}: {answer}");
        assert!(started.elapsed() < Duration::from_secs(3), "{head}: {:?}", started.elapsed());
        assert_eq!(server_state(&app), before, "{head}");
    }
    assert_no_errors_logged(&app);
}

/// The deadline of the answer has passed, but it is the client that is late.
#[test]
fn body_slower_than_the_request_timeout_gets_408() {
    let app = ServerConfig::new().with_arguments(&["--request-timeout", "200ms"]).start();
    let body = "content-type: application/json\r\ncontent-length: 5000\r\n\r\n{";
    let mut answer = String::new();
    start_upload(&app, "POST /predict", body.as_bytes()).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    assert_no_errors_logged(&app);
}
