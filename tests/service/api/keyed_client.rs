//! HTTP client with an API key, and the keys of a server with several owners.

use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess, TIMEOUT};
use serde_json::{Value, json};

/// Key of the administrator of [`server_with_owners`].
pub const ADMIN_KEY: &str = "the-key-of-the-administrator";

/// Scopes of an owner's key that may do everything but administrate.
pub const OWNER_SCOPES: [&str; 5] = ["predict", "generate", "train", "adapters:read", "adapters:write"];

pub fn server_with_owners() -> ServerConfig {
    ServerConfig::new().with_arguments(&["--admin-keys", ADMIN_KEY])
}

/// Client that sends one key.
#[derive(Clone)]
pub struct KeyedClient {
    pub address: String,
    pub key: String,
    agent: ureq::Agent,
}

impl KeyedClient {
    pub fn new(app: &ServerProcess, key: &str) -> Self {
        Self { address: app.url(""), key: key.to_string(), agent: app.agent().clone() }
    }

    pub fn admin(app: &ServerProcess) -> Self {
        Self::new(app, ADMIN_KEY)
    }

    /// Client with a new key of an owner.
    pub fn with_new_key(app: &ServerProcess, owner: &str, scopes: &[&str]) -> Self {
        Self::new(app, &Self::admin(app).create_key(&json!({"owner": owner, "name": "tests", "scopes": scopes})))
    }

    /// Creates a key and returns it.
    pub fn create_key(&self, request: &Value) -> String {
        let answer = self.post("/keys", request);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["key"].as_str().unwrap().to_string()
    }

    /// Sends a request; `body` is sent as JSON.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> HttpResponse {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address))
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", self.key));
        match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body.to_string()).unwrap();
                HttpResponse::from_result(self.agent.run(request))
            }
            None => HttpResponse::from_result(self.agent.run(request.body(()).unwrap())),
        }
    }

    pub fn get(&self, path: &str) -> HttpResponse {
        self.send("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.send("POST", path, Some(body))
    }

    pub fn put(&self, path: &str, body: &Value) -> HttpResponse {
        self.send("PUT", path, Some(body))
    }

    pub fn delete(&self, path: &str) -> HttpResponse {
        self.send("DELETE", path, None)
    }

    /// Creates a job, waits for its success and returns it.
    pub fn train(&self, job: &Value) -> Value {
        let answer = self.post("/jobs", job);
        assert_eq!(answer.status, 202, "{}", answer.text());
        let path = format!("/jobs/{}", answer.json()["id"].as_str().unwrap());
        let started = std::time::Instant::now();
        loop {
            let job = self.get(&path).json();
            match job["status"].as_str().unwrap() {
                "succeeded" => return job,
                "queued" | "running" => assert!(started.elapsed() < TIMEOUT, "{job:#}"),
                _ => panic!("{job:#}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
