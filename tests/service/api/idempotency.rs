//! `Idempotency-Key`: a repeated POST gets the first answer and changes nothing, also across kills of the server.

use crate::api::raw_http::{RawHttpClient, RequestOutcome};
use crate::api::request::{bytes, post, request_without_body};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess, small_job};
use crate::support::database::Database;
use espalier_tensor::seeded_rng::SeededRng;
use serde_json::{Value, json};
use std::time::Duration;

const CSV: &str =
    "text,label\nwhere is my card?,card\nwhat is the rate?,rate\nmy card is lost,card\nthe rate is wrong,rate\n";

fn post_with_key(app: &ServerProcess, path: &str, key: &str, body: &Value) -> HttpResponse {
    post(path, body).with_header("idempotency-key", key).send(app)
}

fn form_with_boundary(app: &ServerProcess, key: &str, boundary: &str, file: &str) -> HttpResponse {
    let body = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"dataset\"; filename=\"a.csv\"\r\n\r\n{file}\r\n--{boundary}--\r\n"
    );
    let content_type = format!("multipart/form-data; boundary={boundary}");
    bytes("/datasets", &content_type, body).with_header("idempotency-key", key).send(app)
}

fn job_count(app: &ServerProcess) -> usize {
    app.get("/jobs?limit=100").json()["data"].as_array().unwrap().len()
}

#[track_caller]
fn expect_replay(first: &HttpResponse, second: &HttpResponse) {
    assert!((200..300).contains(&first.status), "{}", first.text());
    assert_eq!((second.status, second.text()), (first.status, first.text()));
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    for name in ["content-type", "location"] {
        assert_eq!(second.header(name), first.header(name), "{name}");
    }
}

#[track_caller]
fn expect_problem(response: &HttpResponse, status: u16, code: &str) {
    assert_eq!((response.status, response.json()["code"].as_str()), (status, Some(code)), "{}", response.text());
}

#[test]
fn repeated_job_is_created_once() {
    let app = ServerConfig::new().start();
    let job = small_job(16, json!({"name": "once"}));
    let first = post_with_key(&app, "/jobs", "key-1", &job);
    expect_replay(&first, &post_with_key(&app, "/jobs", "\"key-1\"", &job));
    assert_eq!(job_count(&app), 1);
    let other = post_with_key(&app, "/jobs", "key-1", &small_job(16, json!({"name": "twice"})));
    expect_problem(&other, 422, "idempotency_key_reused");
    expect_problem(&post_with_key(&app, "/jobs?validate_only=true", "key-1", &job), 422, "idempotency_key_reused");
    let second = post_with_key(&app, "/jobs", "key-2", &job);
    assert_ne!(second.json()["id"], first.json()["id"]);
    let app = app.kill_and_restart();
    expect_replay(&first, &post_with_key(&app, "/jobs", "key-1", &job));
    assert_eq!(job_count(&app), 2);
}

#[test]
fn repeated_action_gets_the_first_answer() {
    let app = ServerConfig::new().with_arguments(&["--role", "api"]).start();
    let id = app.submit_job(&small_job(16, json!({})));
    let act = |action: &str| {
        request_without_body("POST", format!("/jobs/{id}/{action}")).with_header("idempotency-key", action).send(&app)
    };
    for action in ["pause", "resume", "cancel"] {
        expect_replay(&act(action), &act(action));
    }
    expect_problem(&app.post_bytes(&format!("/jobs/{id}/cancel"), "application/json", b""), 409, "job_over");
}

#[test]
fn failed_request_may_be_corrected_under_its_key() {
    let app = ServerConfig::new().start();
    let wrong = json!({"examples": [], "unknown": 1});
    for _ in 0..2 {
        assert_eq!(post_with_key(&app, "/jobs", "key", &wrong).status, 422);
    }
    let corrected = small_job(16, json!({}));
    let first = post_with_key(&app, "/jobs", "key", &corrected);
    expect_replay(&first, &post_with_key(&app, "/jobs", "key", &corrected));
}

#[test]
fn form_is_recognised_with_another_boundary() {
    let app = ServerConfig::new().start();
    let first = form_with_boundary(&app, "key", "one", CSV);
    assert_eq!(first.status, 201, "{}", first.text());
    expect_replay(&first, &form_with_boundary(&app, "key", "another-boundary", CSV));
    let changed = form_with_boundary(&app, "key", "one", &CSV.replace("lost", "gone"));
    expect_problem(&changed, 422, "idempotency_key_reused");
    let file =
        |key: &str, body: &str| bytes("/datasets", "text/csv", body).with_header("idempotency-key", key).send(&app);
    let first = file("raw", &CSV.replace("lost", "red"));
    expect_replay(&first, &file("raw", &CSV.replace("lost", "red")));
}

#[test]
fn request_in_flight_is_not_started_again() {
    let app = ServerConfig::new().with_arguments(&["--log-level", "debug"]).start();
    let mut slow = RawHttpClient::new(&app.url("/"));
    let head = format!(
        "POST /datasets HTTP/1.1\r\nhost: localhost\r\nidempotency-key: key\r\ncontent-type: text/csv\r\ncontent-length: {}\r\n\r\n",
        CSV.len()
    );
    slow.send(&format!("{head}{}", &CSV[..20])).unwrap();
    let send = || bytes("/datasets", "text/csv", CSV).with_header("idempotency-key", "key").send(&app);
    app.wait_for_log("request with an idempotency key started");
    let second = send();
    expect_problem(&second, 409, "idempotency_key_in_flight");
    assert_eq!(second.header("retry-after"), Some("1"));
    let RequestOutcome::Response { status, body } = slow.finish(&CSV[20..]) else { panic!("the slow request ends") };
    assert_eq!(status, 201, "{body}");
    let second = send();
    assert_eq!((second.status, second.text()), (201, body));
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
}

#[test]
fn request_of_a_client_that_disconnected_is_carried_out() {
    let app = ServerConfig::new().start();
    let job = small_job(16, json!({})).to_string();
    let head = format!(
        "POST /jobs HTTP/1.1\r\nhost: localhost\r\nidempotency-key: key\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        job.len()
    );
    let mut client = RawHttpClient::new(&app.url("/"));
    client.send(&format!("{head}{job}")).unwrap();
    drop(client);
    let send = || bytes("/jobs", "application/json", job.clone()).with_header("idempotency-key", "key").send(&app);
    let mut response = send();
    while response.status == 409 {
        std::thread::sleep(Duration::from_millis(20));
        response = send();
    }
    assert_eq!(response.status, 202, "{}", response.text());
    assert_eq!(job_count(&app), 1);
}

#[test]
fn keys_are_checked_and_computations_ignore_them() {
    let app = ServerConfig::new().start();
    for key in ["", "two words", &"x".repeat(256)] {
        let response = post_with_key(&app, "/jobs", key, &small_job(16, json!({})));
        expect_problem(&response, 400, "invalid_idempotency_key");
    }
    let openai = post_with_key(&app, "/v1/fine_tuning/jobs", "two words", &json!({}));
    assert_eq!(openai.json()["error"]["code"], "invalid_idempotency_key");
    for text in ["one", "two"] {
        let response = post_with_key(&app, "/embed", "key", &json!({"inputs": text}));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("idempotent-replayed"), None);
    }
}

#[test]
fn large_answer_is_named_by_its_location() {
    let app = ServerConfig::new().with_arguments(&["--idempotency-max-response", "100B"]).start();
    let job = small_job(16, json!({}));
    let first = post_with_key(&app, "/jobs", "key", &job);
    assert_eq!(first.status, 202);
    let second = post_with_key(&app, "/jobs", "key", &job);
    expect_problem(&second, 409, "idempotent_response_not_stored");
    let location = first.header("location").unwrap();
    assert!(second.json()["detail"].as_str().unwrap().contains(location), "{}", second.text());
    assert_eq!(job_count(&app), 1);
}

#[test]
fn killed_server_creates_each_job_once_on_sqlite() {
    kill_while_jobs_are_created(ServerConfig::new());
}

#[test]
fn killed_server_creates_each_job_once_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Database::postgres());
    kill_while_jobs_are_created(ServerConfig::new().with_database(database.url().to_string()));
    runtime.block_on(database.drop_database());
}

/// Kills the server a random time after each request was sent, and sends it to the restarted server until it is answered.
fn kill_while_jobs_are_created(config: ServerConfig) {
    let kills = if crate::api::job_traces::is_soak() { 60 } else { 8 };
    let mut random = SeededRng::new(7, &["idempotency"]);
    let mut app = config.with_arguments(&["--role", "api"]).start();
    for number in 0..kills {
        let key = format!("key-{number}");
        let job = small_job(16, json!({"name": format!("job-{number}")}));
        let request = post("/jobs", &job).with_header("idempotency-key", &key);
        let (agent, url, body) = (app.agent().clone(), app.url("/jobs"), job.to_string());
        let header = key.clone();
        let client = std::thread::spawn(move || {
            let request = agent.post(url).header("content-type", "application/json").header("idempotency-key", header);
            // Fails if the server is killed before it has answered.
            request.send(body).is_ok()
        });
        std::thread::sleep(Duration::from_millis(random.uniform_below(80) as u64));
        app = app.kill_and_restart();
        let was_answered = client.join().unwrap();
        let response = request.clone().send(&app);
        assert_eq!(response.status, 202, "{number}: {}", response.text());
        assert!(!was_answered || response.header("idempotent-replayed") == Some("true"), "{number}");
        expect_same_job(&response, &request.send(&app));
        assert_eq!(job_count(&app), number + 1, "after kill {number}");
    }
}

fn expect_same_job(first: &HttpResponse, second: &HttpResponse) {
    assert_eq!(second.text(), first.text());
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
}
