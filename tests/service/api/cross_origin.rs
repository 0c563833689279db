//! Tests of requests that web pages of other origins make: DNS rebinding and cross-site request forgery.

use crate::api::error_cases::server_state;
use crate::api::request::{Request, bytes, delete, form, get, request_without_body};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

const KEY: &str = "a-key-that-no-page-knows";
const ROWS: &[u8] = b"text,label\na,x\nb,y\nc,x\nd,y\n";

/// Status of a request with this `Host`, and its body.
fn get_with_host(app: &ServerProcess, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(app.url("").trim_start_matches("http://")).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

#[test]
fn server_without_keys_answers_only_to_its_own_names() {
    let app = ServerConfig::new().start();
    let address = app.url("").trim_start_matches("http://").to_string();
    for host in ["localhost", "localhost:9999", "127.0.0.1", "[::1]:8080", &address] {
        assert_eq!(get_with_host(&app, "/jobs", host).0, 200, "{host}");
    }
    for (path, host) in
        [("/jobs", "evil.example"), ("/v1/models", "evil.example:8080"), ("/health/ready", "a.localhost")]
    {
        let (status, body) = get_with_host(&app, path, host);
        let body: Value = serde_json::from_str(&body).unwrap();
        let error = if path.starts_with("/v1") { body["error"].clone() } else { body };
        assert_eq!((status, &error["code"]), (421, &json!("host_not_allowed")), "{host}");
        assert!(error.to_string().contains("--allowed-hosts"), "{error}");
    }
    // An absolute target overrides `Host`.
    assert_eq!(get_with_host(&app, "http://evil.example/jobs", "localhost").0, 421);
}

#[test]
fn allowed_hosts_are_names_of_the_server() {
    let app = ServerConfig::new().with_arguments(&["--allowed-hosts", "models.example, espalier"]).start();
    for (host, status) in [("models.example:8080", 200), ("Espalier", 200), ("localhost", 200), ("evil.example", 421)] {
        assert_eq!(get_with_host(&app, "/jobs", host).0, status, "{host}");
    }
    let app = ServerConfig::new().with_arguments(&["--allowed-hosts", "*"]).start();
    assert_eq!(get_with_host(&app, "/jobs", "evil.example").0, 200);
}

#[test]
fn server_with_keys_works_behind_any_proxy() {
    let app = ServerConfig::new().with_arguments(&["--api-keys", KEY]).start();
    assert_eq!(get_with_host(&app, "/jobs", "models.example").0, 200);
    let app = ServerConfig::new().with_arguments(&["--api-keys", KEY, "--allowed-hosts", "models.example"]).start();
    assert_eq!(get_with_host(&app, "/jobs", "models.example").0, 200);
    assert_eq!(get_with_host(&app, "/jobs", "evil.example").0, 421);
}

/// Requests that a page may send without asking the server first (CORS).
fn simple_writes() -> Vec<Request> {
    let job = small_job(20, json!({}));
    vec![
        form("/jobs", ("job", &json!({})), ("dataset", "a.csv", ROWS)),
        form("/datasets", ("options", &json!({})), ("dataset", "a.csv", ROWS)),
        bytes("/datasets?file_name=a.csv", "text/plain", ROWS),
        bytes("/jobs", "application/json", job.to_string()),
        delete("/adapters/questions"),
    ]
}

#[test]
fn page_of_another_origin_changes_nothing_on_a_server_without_keys() {
    let app = ServerConfig::new().with_arguments(&["--role", "api"]).start();
    let before = server_state(&app);
    for headers in [
        vec![("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
        vec![("origin", "http://localhost:1"), ("sec-fetch-site", "same-site")],
        vec![("sec-fetch-site", "cross-site")],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
    ] {
        for (index, request) in simple_writes().into_iter().enumerate() {
            let request = headers.iter().fold(request, |request, (name, value)| request.with_header(name, value));
            let answer = request.send(&app);
            assert_eq!(answer.status, 403, "{index} {headers:?}: {}", answer.text());
            assert_eq!(answer.json()["code"], "cross_origin_request");
            assert!(answer.text().contains("--api-keys"), "{}", answer.text());
        }
        assert_eq!(get("/jobs").with_header("origin", "https://evil.example").send(&app).status, 200);
    }
    assert_eq!(server_state(&app), before);
}

#[test]
fn programs_and_pages_of_the_server_itself_may_write() {
    let app = ServerConfig::new().with_arguments(&["--role", "api"]).start();
    let own = app.url("");
    for headers in
        [vec![], vec![("origin", own.as_str()), ("sec-fetch-site", "same-origin")], vec![("origin", own.as_str())]]
    {
        for request in simple_writes() {
            let request = headers.iter().fold(request, |request, (name, value)| request.with_header(name, value));
            let status = request.send(&app).status;
            assert!([200, 201, 202, 404].contains(&status), "{status} {headers:?}");
        }
    }
}

/// A page that knows a key is a client like any other.
#[test]
fn request_with_a_key_may_come_from_any_origin() {
    let app = ServerConfig::new().with_arguments(&["--role", "api", "--api-keys", KEY]).start();
    let cross_site = |request: Request| {
        request.with_header("origin", "https://app.example").with_header("sec-fetch-site", "cross-site")
    };
    for request in simple_writes() {
        assert_eq!(cross_site(request.clone()).send(&app).status, 401);
        let status = cross_site(request).with_header("authorization", &format!("Bearer {KEY}")).send(&app).status;
        assert!([200, 201, 202, 404].contains(&status), "{status}");
    }
}

#[test]
fn pages_of_listed_origins_may_call_the_server() {
    let preflight = |app: &ServerProcess, origin: &str| {
        let request = request_without_body("OPTIONS", "/predict");
        request
            .with_header("origin", origin)
            .with_header("access-control-request-method", "POST")
            .with_header("access-control-request-headers", "authorization,content-type")
            .send(app)
    };
    let listed = "https://app.example.com";
    for arguments in [&["--cors-origins", listed, "--api-keys", KEY][..], &["--cors-origins", listed]] {
        let app = ServerConfig::new().with_arguments(arguments).start();
        let answer = preflight(&app, listed);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(listed)));
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,content-type"));
        assert_eq!(preflight(&app, "https://evil.example").header("access-control-allow-origin"), None);
        // Errors have the header too, so that the page can read them.
        let wrong = bytes("/predict", "application/json", "{").with_header("origin", listed);
        let wrong = wrong.with_header("authorization", &format!("Bearer {KEY}")).send(&app);
        assert_eq!(
            (wrong.status, wrong.header("access-control-allow-origin")),
            (400, Some(listed)),
            "{}",
            wrong.text()
        );
        let exposed = wrong.header("access-control-expose-headers").unwrap_or_default();
        assert!(exposed.contains("x-request-id"), "{exposed}");
    }
    let app = ServerConfig::new().start();
    assert_eq!(preflight(&app, listed).header("access-control-allow-origin"), None);
}
