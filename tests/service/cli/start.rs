//! Tests of starting and stopping the server.

use crate::api::server_process::ServerConfig;
use crate::cli::run::{Server, espalier, free_address, run, signal, wait_for_output};
use espalier_testing::jobs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Starts a server that must fail and returns its error, a single line.
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
    let output = wait_for_output(command.args(arguments).spawn().unwrap());
    assert_eq!(output.code, code, "{}", output.err);
    assert_eq!(output.err.trim_end().lines().count(), 1, "{}", output.err);
    assert!(output.err.starts_with("error: "), "{}", output.err);
    output.err
}

#[test]
fn startup_error_is_one_actionable_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    assert!(startup_error(1, &["--listen", &taken]).contains("in use"));
    assert!(startup_error(2, &["--listen", "0.0.0.0:0"]).contains("--insecure-no-auth"));
    assert!(startup_error(2, &["--model", "/nowhere"]).contains("/nowhere"));
    assert!(startup_error(2, &["--data-dir", "/dev/null/data"]).contains("data folder"));
    let unused = format!("postgres://user:secret@{}/espalier", free_address());
    let unreachable = startup_error(2, &["--database-url", &unused]);
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
    let output = run(&["jobs", "list", "--server", &server]);
    assert_eq!(output.code, 1);
    assert!(output.err.contains("ESPALIER_API_KEY"), "{}", output.err);
    let mut allowed = espalier(&["jobs", "list", "--server", &server]);
    wait_for_output(allowed.env("ESPALIER_API_KEY", key).spawn().unwrap()).success_stdout();
    run(&["health", "--server", &server]).success_stdout();
}

#[test]
fn first_signal_drains_and_second_exits() {
    let setup = ServerConfig::new();
    let mut server = Server::start(&setup, &free_address(), &[]);
    let address = server.url.trim_start_matches("http://").to_string();
    // A request without its body stays in flight until the shutdown timeout.
    let mut open = TcpStream::connect(&address).unwrap();
    let head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n";
    open.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).unwrap();
    let mut answer = [0; 12];
    open.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100", "the server reads the body");
    signal(&server.child, "TERM");
    // The server closes the listener after the signal.
    while TcpStream::connect(&address).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(server.child.try_wait().unwrap(), None, "the server waits for the request");
    signal(&server.child, "TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
}

#[test]
fn server_runs_while_its_log_cannot_be_written() {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut command = espalier(&["serve", "--listen", &address, "--log-format", "json", "--model"]);
    command.arg(jobs::fixture("tiny-bert")).arg("--data-dir").arg(folder.path());
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let mut server = Server { url: format!("http://{address}"), child: command.spawn().unwrap() };
    // The log cannot say when the server listens.
    while TcpStream::connect(&address).is_err() {
        assert_eq!(server.child.try_wait().unwrap(), None, "the server ended");
        std::thread::yield_now();
    }
    run(&["health", "--server", &server.url]).success_stdout();
    run(&["jobs", "list", "--server", &server.url]).success_stdout();
    signal(&server.child, "TERM");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn health_fails_without_a_server() {
    let unhealthy = run(&["health", "--server", &format!("http://{}", free_address())]);
    assert_eq!(unhealthy.code, 1);
    assert!(unhealthy.err.contains("no server answers"), "{}", unhealthy.err);
}
