//! Clients that send random requests, and the expected responses.

use crate::api::server_process::{ServerProcess, TIMEOUT};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Indices of texts.
pub type Inputs = Vec<usize>;

/// Number of distinct texts.
const TEXT_COUNT: usize = 12;
/// Maximum number of inputs of a random request.
const MAX_INPUTS: usize = 4;

fn input(number: usize) -> Value {
    let text = ["where is my card", "why was I charged a fee", "how do I change the pin of my new card, please?"];
    let text = format!("{} {number}{}", text[number % 3], " or not".repeat(number % 5));
    match number % 4 {
        3 => json!({"text": text, "text_pair": "the transfer was stopped"}),
        _ => json!(text),
    }
}

/// Client with its own connection and random number generator.
pub struct LoadClient {
    agent: ureq::Agent,
    address: String,
    random: u64,
}

/// Version that answered (`base` for the base model), and a vector per input.
pub struct PredictResult {
    pub version: String,
    pub rows: Vec<Vec<f64>>,
}

impl LoadClient {
    pub fn new(app: &ServerProcess, seed: u64) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Self { agent: config.into(), address: app.url(""), random: seed + 1 }
    }

    /// Random number below `count` (SplitMix64).
    pub fn random_below(&mut self, count: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % count as u64) as usize
    }

    pub fn random_inputs(&mut self) -> Inputs {
        (0..=self.random_below(MAX_INPUTS)).map(|_| self.random_below(TEXT_COUNT)).collect()
    }

    /// Predicts; `None` if the adapter does not exist. Any other error panics.
    pub fn predict(&self, adapter: Option<&str>, inputs: &Inputs) -> Option<PredictResult> {
        let path = adapter.map_or("/predict".to_string(), |adapter| format!("/predict?adapter={adapter}"));
        let inputs: Vec<Value> = inputs.iter().map(|number| input(*number)).collect();
        let body = json!({"inputs": inputs, "logits": adapter.is_some()});
        let (status, answer) = self.post(&path, "application/json", body.to_string().as_bytes());
        match status {
            200 => Some(parse_result(&answer)),
            404 => None,
            _ => panic!("{path} was answered {status}: {answer:#}"),
        }
    }

    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        let url = format!("{}{path}", self.address);
        let response = self.agent.post(url).header("content-type", content_type).send(body).unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_reader(response.into_body().into_reader()).unwrap())
    }

    pub fn delete(&self, path: &str) -> u16 {
        self.agent.delete(format!("{}{path}", self.address)).call().unwrap().status().as_u16()
    }

    /// Waits for the job, which must succeed.
    pub fn train_to_success(&self, job: &Value) -> Value {
        let (status, job) = self.post("/jobs", "application/json", job.to_string().as_bytes());
        assert_eq!(status, 202, "{job:#}");
        let url = format!("{}/jobs/{}", self.address, job["id"].as_str().unwrap());
        let events = self.agent.get(format!("{url}/events")).header("accept", "text/event-stream").call().unwrap();
        // The stream ends with the job.
        events.into_body().read_to_string().unwrap();
        let job = self.agent.get(url).call().unwrap().into_body().into_reader();
        let job: Value = serde_json::from_reader(job).unwrap();
        assert_eq!(job["status"], "succeeded", "{job:#}");
        job
    }
}

fn parse_result(answer: &Value) -> PredictResult {
    let version = answer["adapter"]["version"].as_str().unwrap_or("base").to_string();
    let field = if version == "base" { "embedding" } else { "logits" };
    let row = |prediction: &Value| serde_json::from_value(prediction[field].clone()).unwrap();
    PredictResult { version, rows: answer["predictions"].as_array().unwrap().iter().map(row).collect() }
}

/// Expected response of every version to every text, computed with single requests.
pub struct ExpectedOutputs {
    alone: LoadClient,
    rows: BTreeMap<String, Vec<Vec<f64>>>,
}

impl ExpectedOutputs {
    pub fn new(app: &ServerProcess) -> Self {
        Self { alone: LoadClient::new(app, 0), rows: BTreeMap::new() }
    }

    pub fn record(&mut self, version: &str, adapter: Option<&str>) {
        let alone = |number: usize| {
            let answered = self.alone.predict(adapter, &vec![number]).unwrap();
            assert_eq!(answered.version, version);
            answered.rows.into_iter().next().unwrap()
        };
        let rows: Vec<Vec<f64>> = (0..TEXT_COUNT).map(alone).collect();
        assert_ne!(rows[0], rows[1], "the answers of {version} say nothing");
        self.rows.insert(version.to_string(), rows);
    }

    /// Checks that the response equals the one of a single request to its version.
    pub fn assert_matches(&self, answered: &PredictResult, inputs: &Inputs, version: &str) {
        assert_eq!(answered.version, version);
        assert_eq!(answered.rows.len(), inputs.len());
        for (row, number) in answered.rows.iter().zip(inputs) {
            let alone = &self.rows[version][*number];
            assert_eq!(row.len(), alone.len());
            // Relative above 1, because large logits have less absolute precision.
            let apart = |(one, other): (&f64, &f64)| (one - other).abs() / other.abs().max(1.0);
            let difference = row.iter().zip(alone).map(apart).fold(0.0, f64::max);
            assert!(difference <= 1e-5, "{version} answers {row:?} in company and {alone:?} alone");
        }
    }
}
