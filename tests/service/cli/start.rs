//! The server's start and stop, as its operator sees them.

use crate::api::server_process::ServerConfig;
use crate::cli::run::{Server, espalier, free_address, run, signal, wait_for_output};
use espalier_testing::jobs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// The one line that says why the server does not start.
fn startup_error(code: i32, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let model = jobs::fixture("tiny-bert");
    let mut command = espalier(&["serve", "--log-level", "warn"]);
    for (flag, value) in [("--model", model.to_str().unwrap()), ("--data-dir", folder.path().to_str().unwrap())] {
        if !arguments.contains(&flag) {
            command.args([flag, value]);
        }
    }
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    let refused = wait_for_output(command.args(arguments).spawn().unwrap());
    assert_eq!(refused.code, code, "{}", refused.err);
    assert_eq!(refused.err.trim_end().lines().count(), 1, "{}", refused.err);
    assert!(refused.err.starts_with("error: "), "{}", refused.err);
    refused.err
}

#[test]
fn startup_error_is_one_actionable_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    assert!(startup_error(1, &["--listen", &taken]).contains("in use"));
    assert!(startup_error(2, &["--listen", "0.0.0.0:0"]).contains("--insecure-no-auth"));
    assert!(startup_error(2, &["--model", "/nowhere"]).contains("/nowhere"));
    assert!(startup_error(2, &["--data-dir", "/dev/null/data"]).contains("data folder"));
    let nobody = format!("postgres://user:secret@{}/espalier", free_address());
    let unreachable = startup_error(2, &["--database-url", &nobody]);
    assert!(unreachable.contains("Postgres") && !unreachable.contains("secret"), "{unreachable}");
    assert!(startup_error(2, &["--database-url", "mysql://here"]).contains("sqlite://"));
}

#[test]
fn worker_serves_only_health_and_metrics() {
    let app = ServerConfig::new().with_arguments(&["--role", "worker"]).start();
    assert_eq!(app.get("/health/ready").status, 200);
    assert_eq!(app.get("/health/live").status, 200);
    assert_eq!(app.get("/metrics").status, 200);
    for path in ["/jobs", "/adapters", "/base", "/docs"] {
        assert_eq!(app.get(path).status, 404, "{path}");
    }
}

#[test]
fn api_key_is_read_from_the_environment() {
    let key = "0123456789abcdef";
    let app = ServerConfig::new().with_arguments(&["--api-keys", key]).start();
    let server = app.url("");
    let refused = run(&["jobs", "list", "--server", &server]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("ESPALIER_API_KEY"), "{}", refused.err);
    let mut allowed = espalier(&["jobs", "list", "--server", &server]);
    wait_for_output(allowed.env("ESPALIER_API_KEY", key).spawn().unwrap()).success_stdout();
    run(&["health", "--server", &server]).success_stdout();
}

#[test]
fn first_signal_drains_and_second_exits() {
    let setup = ServerConfig::new();
    let mut server = Server::start(&setup, &free_address(), &[]);
    let address = server.url.trim_start_matches("http://").to_string();
    // A request whose body does not come: it is under way until the grace is over.
    let mut open = TcpStream::connect(&address).unwrap();
    let head = "POST /predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: 9\r\n";
    open.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).unwrap();
    let mut answer = [0; 12];
    open.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100", "the server reads the body");
    signal(&server.child, "TERM");
    // The listener is closed once the signal was heard.
    while TcpStream::connect(&address).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(server.child.try_wait().unwrap(), None, "the request is waited for");
    signal(&server.child, "TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
}

#[test]
fn health_fails_without_a_server() {
    let unhealthy = run(&["health", "--server", &format!("http://{}", free_address())]);
    assert_eq!(unhealthy.code, 1);
    assert!(unhealthy.err.contains("no server answers"), "{}", unhealthy.err);
}
