//! Webhooks against a receiver on this machine: signatures, retries, kills of the server, and addresses that are not called.

use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use crate::support::database::Database;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

/// Request that the receiver got.
struct Call {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Call {
    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks the signature as a receiver does.
    fn verify(&self, secret: &str) {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", self.id(), self.headers["webhook-timestamp"], self.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(self.headers["webhook-signature"], expected);
        assert_eq!(self.headers["content-type"], "application/json");
    }
}

/// Starts a receiver that answers its requests with these statuses in turn, and with the last one from then on.
fn start_receiver(statuses: &'static [u16]) -> (String, Receiver<Call>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    let (sender, calls) = channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Some(call) = read_call(&mut stream.unwrap(), statuses[number.min(statuses.len() - 1)]) else {
                continue;
            };
            if sender.send(call).is_err() {
                return;
            }
        }
    });
    (url, calls)
}

fn read_call(stream: &mut TcpStream, status: u16) -> Option<Call> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<String, String> =
            lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect();
        if body.len() >= headers["content-length"].parse().unwrap() {
            let call = Call { headers, body: body.to_string() };
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return Some(call);
        }
    }
}

fn server() -> ServerConfig {
    ServerConfig::new().with_arguments(&["--webhook-allow", "127.0.0.0/8"])
}

/// Creates a webhook and returns its id and its secret.
fn create(app: &ServerProcess, url: &str, events: &[&str]) -> (String, String) {
    let created = app.post("/webhooks", &json!({"url": url, "events": events}));
    assert_eq!((created.status, created.header("cache-control")), (201, Some("no-store")), "{}", created.text());
    let webhook = created.json();
    assert_eq!(created.header("location"), Some(format!("/webhooks/{}", webhook["id"].as_str().unwrap()).as_str()));
    (webhook["id"].as_str().unwrap().to_string(), webhook["secret"].as_str().unwrap().to_string())
}

fn deliveries(app: &ServerProcess, webhook: &str) -> Vec<Value> {
    app.get(&format!("/webhooks/{webhook}/deliveries")).json()["data"].as_array().unwrap().clone()
}

/// Waits until the newest delivery has this status, and returns it.
fn wait_for_delivery(app: &ServerProcess, webhook: &str, status: &str) -> Value {
    let deadline = std::time::Instant::now() + WAIT;
    loop {
        let newest = deliveries(app, webhook).into_iter().next().unwrap();
        if newest["status"] == status {
            return newest;
        }
        assert!(std::time::Instant::now() < deadline, "{newest:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn end_of_a_job_is_sent_and_signed() {
    let app = server().start();
    let (url, calls) = start_receiver(&[204]);
    let (id, secret) = create(&app, &url, &["job.succeeded", "job.cancelled"]);
    let job = app.train_to_success(&small_job(16, json!({"name": "hooked"})));
    let call = calls.recv_timeout(WAIT).unwrap();
    call.verify(&secret);
    let payload = call.json();
    assert_eq!((&payload["type"], &payload["data"]["job_id"]), (&json!("job.succeeded"), &job["id"]));
    assert_eq!((&payload["data"]["name"], &payload["data"]["adapter"]["id"]), (&json!("hooked"), &job["adapter_id"]));
    assert!(payload["data"]["metrics"].as_object().unwrap().values().all(Value::is_number), "{payload:#}");
    for example in espalier_testing::jobs::examples(16) {
        assert!(!call.body.contains(&example.text), "no text of the dataset is sent");
    }
    let delivery = wait_for_delivery(&app, &id, "delivered");
    assert_eq!((delivery["id"].as_str(), &delivery["response_status"]), (Some(call.id()), &json!(204)));
    let listed = app.get("/webhooks").text() + &app.get(&format!("/webhooks/{id}")).text();
    assert!(!listed.contains(&secret) && !app.log().join("\n").contains(&secret), "the secret is shown once");
}

#[test]
fn failed_call_is_repeated_with_the_same_id_and_sent_again_on_request() {
    let app = server().start();
    let (url, calls) = start_receiver(&[500, 204]);
    let (id, secret) = create(&app, &url, &["job.failed"]);
    assert_eq!(app.post_bytes(&format!("/webhooks/{id}/test"), "application/json", b"").status, 202);
    let (first, second) = (calls.recv_timeout(WAIT).unwrap(), calls.recv_timeout(WAIT).unwrap());
    second.verify(&secret);
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    let delivery = wait_for_delivery(&app, &id, "delivered");
    assert_eq!(delivery["attempts"], 2);
    let resend = format!("/webhooks/{id}/deliveries/{}/resend", second.id());
    assert_eq!(app.post_bytes(&resend, "application/json", b"").status, 202);
    let third = calls.recv_timeout(WAIT).unwrap();
    third.verify(&secret);
    assert_eq!(third.id(), first.id());
}

#[test]
fn webhook_that_is_gone_is_disabled_until_it_is_enabled() {
    let app = server().start();
    let (url, calls) = start_receiver(&[410, 204]);
    let (id, _) = create(&app, &url, &["job.cancelled"]);
    let test = || app.post_bytes(&format!("/webhooks/{id}/test"), "application/json", b"");
    assert_eq!(test().status, 202);
    calls.recv_timeout(WAIT).unwrap();
    wait_for_delivery(&app, &id, "failed");
    assert_eq!(test().json()["code"], "webhook_disabled");
    let enabled = app.post_bytes(&format!("/webhooks/{id}/enable"), "application/json", b"");
    assert_eq!(enabled.json()["disabled_at"], Value::Null);
    assert_eq!(test().status, 202);
    wait_for_delivery(&app, &id, "delivered");
    assert_eq!(app.delete(&format!("/webhooks/{id}")).status, 204);
    assert_eq!(test().status, 404);
}

#[test]
fn killed_server_delivers_after_its_restart_on_sqlite() {
    kill_before_delivery(server());
}

#[test]
fn killed_server_delivers_after_its_restart_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Database::postgres());
    kill_before_delivery(server().with_database(database.url().to_string()));
    runtime.block_on(database.drop_database());
}

/// Ends jobs while the server is killed; every job is delivered.
fn kill_before_delivery(config: ServerConfig) {
    let (url, calls) = start_receiver(&[204]);
    let mut app = config.with_arguments(&["--role", "api"]).start();
    let (id, secret) = create(&app, &url, &["job.cancelled"]);
    let mut cancelled = Vec::new();
    for number in 0..6 {
        let job = app.submit_job(&small_job(16, json!({})));
        assert_eq!(app.post_bytes(&format!("/jobs/{job}/cancel"), "application/json", b"").status, 200);
        cancelled.push(job);
        std::thread::sleep(Duration::from_millis(150 * number));
        app = app.kill_and_restart();
    }
    let mut delivered = Vec::new();
    while delivered.len() < cancelled.len() {
        let call = calls.recv_timeout(WAIT).expect("every job is delivered");
        call.verify(&secret);
        let job = call.json()["data"]["job_id"].as_str().unwrap().to_string();
        if !delivered.contains(&job) {
            delivered.push(job);
        }
    }
    delivered.sort();
    cancelled.sort();
    assert_eq!(delivered, cancelled);
    assert_eq!(deliveries(&app, &id).len(), cancelled.len());
}

#[test]
fn addresses_inside_networks_are_not_called() {
    let app = ServerConfig::new().start();
    let (url, calls) = start_receiver(&[204]);
    let port = url.split(':').nth(2).unwrap().split('/').next().unwrap().to_string();
    for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[fd00:ec2::254]"] {
        let refused = app.post("/webhooks", &json!({"url": format!("http://{address}:{port}/")}));
        assert_eq!(refused.status, 422, "{address}");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/url");
    }
    for host in ["localhost", "2130706433", "0x7f.1"] {
        let (id, _) = create(&app, &format!("http://{host}:{port}/"), &["job.failed"]);
        app.post_bytes(&format!("/webhooks/{id}/test"), "application/json", b"");
        let delivery = loop {
            let delivery = deliveries(&app, &id).remove(0);
            if !delivery["error"].is_null() {
                break delivery;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!((&delivery["status"], &delivery["response_status"]), (&json!("pending"), &Value::Null), "{host}");
    }
    assert!(calls.try_recv().is_err());
}

#[test]
fn wrong_webhooks_are_refused() {
    let app = ServerConfig::new().with_arguments(&["--max-webhooks", "1"]).start();
    let cases = [
        (json!({}), ""),
        (json!({"url": "example.com"}), "/url"),
        (json!({"url": "ftp://example.com/"}), "/url"),
        (json!({"url": "https://user:pw@example.com/"}), "/url"),
        (json!({"url": "https://example.com/", "events": []}), "/events"),
        (json!({"url": "https://example.com/", "events": ["job.failed", "job.failed"]}), "/events"),
        (json!({"url": "https://example.com/", "events": ["webhook.test"]}), "/events"),
        (json!({"url": "https://example.com/", "events": ["job.started"]}), "/events/0"),
        (json!({"url": "https://example.com/", "secret": "mine"}), "/secret"),
    ];
    for (body, pointer) in cases {
        let response = app.post("/webhooks", &body);
        assert_eq!((response.status, &response.json()["errors"][0]["pointer"]), (422, &json!(pointer)), "{body}");
    }
    create(&app, "https://example.com/", &["job.failed"]);
    assert_eq!(app.post("/webhooks", &json!({"url": "https://example.com/"})).json()["code"], "too_many_webhooks");
}
