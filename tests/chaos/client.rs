//! Client behind a load balancer: a request that a replica does not answer goes to the other one.

use crate::cluster::{Cluster, REPLICAS};
use crate::report::{Outcome, Report};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Time until a client gives up an attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time without an answer of any replica after which something is wrong: longer than all faults.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Client<'test> {
    cluster: &'test Cluster<'test>,
    report: &'test Report,
    agent: ureq::Agent,
    replica: usize,
}

#[derive(Clone, Copy)]
pub struct Request<'body> {
    pub method: &'static str,
    pub path: &'body str,
    pub body: Option<&'body Value>,
    pub idempotency_key: Option<&'body str>,
}

pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub replica: usize,
    /// When the attempt that was answered was sent.
    pub sent: Instant,
}

/// Result of one attempt.
enum Attempt {
    Answered(u16, Value),
    Retry(Outcome, Duration),
}

impl<'test> Client<'test> {
    pub fn new(cluster: &'test Cluster<'test>, report: &'test Report) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_global(Some(ATTEMPT_TIMEOUT))
            .build();
        Self { cluster, report, agent: config.into(), replica: 0 }
    }

    pub fn get(&mut self, path: &str) -> Option<Answer> {
        self.send(Request { method: "GET", path, body: None, idempotency_key: None })
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Option<Answer> {
        self.send(Request { method: "POST", path, body: Some(body), idempotency_key: None })
    }

    pub fn delete(&mut self, path: &str) -> Option<Answer> {
        self.send(Request { method: "DELETE", path, body: None, idempotency_key: None })
    }

    /// Sends the next request to this replica first.
    pub fn choose_replica(&mut self, replica: usize) {
        self.replica = replica;
    }

    /// Repeats a request until a replica answers it. Without an answer for too long it records a violation and returns `None`.
    pub fn send(&mut self, request: Request) -> Option<Answer> {
        let started = Instant::now();
        loop {
            let (sent, replica) = (Instant::now(), self.replica);
            let mut faults = self.cluster.active_faults();
            let attempt = self.attempt(request, replica);
            faults.extend(self.cluster.active_faults());
            match attempt {
                Attempt::Answered(status, body) => {
                    self.report.record(&faults, Outcome::Answered, sent.elapsed());
                    return Some(Answer { status, body, replica, sent });
                }
                Attempt::Retry(outcome, delay) => {
                    self.report.record(&faults, outcome, sent.elapsed());
                    self.replica = (replica + 1) % REPLICAS;
                    std::thread::sleep(delay.min(Duration::from_secs(1)));
                }
            }
            if started.elapsed() > ANSWER_TIMEOUT {
                self.report
                    .add_violation(format!("{} {}: no answer for {ANSWER_TIMEOUT:?}", request.method, request.path));
                return None;
            }
        }
    }

    fn attempt(&self, request: Request, replica: usize) -> Attempt {
        let url = format!("http://{}{}", self.cluster.replicas()[replica].address, request.path);
        let mut http =
            ureq::http::Request::builder().method(request.method).uri(url).header("accept", "application/json");
        if let Some(key) = request.idempotency_key {
            http = http.header("idempotency-key", key);
        }
        let result = match request.body {
            Some(body) => {
                self.agent.run(http.header("content-type", "application/json").body(body.to_string()).unwrap())
            }
            None => self.agent.run(http.body(()).unwrap()),
        };
        let broken = Attempt::Retry(Outcome::Disconnected, Duration::from_millis(50));
        let Ok(response) = result else { return broken };
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let Ok(body) = response.into_body().read_to_string() else { return broken };
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        match (status, retry_after.map(Duration::from_secs)) {
            (503 | 507, Some(delay)) => Attempt::Retry(Outcome::Unavailable, delay),
            // The answer to the first attempt is not known yet.
            (409, Some(delay)) if body["code"] == "idempotency_key_in_flight" => {
                Attempt::Retry(Outcome::Unavailable, delay)
            }
            (500.., _) => {
                self.report.add_violation(format!("{} {}: {status} {body}", request.method, request.path));
                Attempt::Retry(Outcome::Unavailable, Duration::from_millis(50))
            }
            _ => Attempt::Answered(status, body),
        }
    }
}
