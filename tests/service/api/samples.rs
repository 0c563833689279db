//! Tests of sampling texts after each epoch.

use crate::api::generation::{generate, lora, start_with_decoder, texts, train_adapter};
use crate::api::server_process::ServerProcess;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Events of the split `samples`: steps and texts.
fn samples(app: &ServerProcess, job: &Value) -> Vec<(u64, Vec<String>)> {
    let path = format!("/jobs/{}/events", job["id"].as_str().unwrap());
    let answer = app.agent().get(app.url(&path)).header("accept", "application/json").call();
    let events: Value = answer.unwrap().body_mut().read_json().unwrap();
    let rows = events["data"].as_array().unwrap().iter().filter(|event| event["data"]["split"] == "samples");
    let row = |event: &Value| {
        let row = &event["data"];
        let texts = row["metrics"]["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string());
        (row["step"].as_u64().unwrap(), texts.collect())
    };
    rows.map(row).collect()
}

#[test]
fn samples_are_recorded_every_epoch() {
    let app = start_with_decoder("llama", &[]);
    let rows: Vec<Value> = (0..48)
        .map(|index| {
            let (prompt, answer) = [("red", " apple"), ("green", " pear")][index % 2];
            json!({"prompt": format!("fruit {prompt}"), "completion": answer})
        })
        .collect();
    let inputs = json!(["fruit red", "fruit green", {"messages": [{"role": "user", "content": "hi"}]}]);
    for method in [lora(), json!({"type": "prompt_tuning"}), json!({"type": "prefix_tuning"})] {
        let job = train_adapter(
            &app,
            "fruit",
            &rows,
            json!({"method": method, "samples": {"inputs": inputs, "max_tokens": 9},
            "validation": {"fraction": 0}, "hyperparameters": {"epochs": 8, "learning_rate": 0.01, "batch_size": 6}}),
        );
        let sampled = samples(&app, &job);
        let steps: Vec<u64> = sampled.iter().map(|(step, _)| *step).collect();
        assert_eq!(
            steps,
            (0..=8).map(|epoch| 8 * epoch).collect::<Vec<_>>(),
            "before the first step, and after each epoch"
        );
        let generated = generate(&app, "fruit", inputs.clone(), json!({"max_tokens": 9}));
        assert_eq!(sampled.last().unwrap().1, texts(&generated), "the last samples equal the adapter's output");
        assert_ne!(sampled[0].1, sampled[8].1);
    }
}

#[test]
fn unsupported_samples_are_rejected() {
    let app = start_with_decoder("llama", &[]);
    let rows: Vec<Value> = (0..12).map(|index| json!({"prompt": format!("a {index}"), "completion": "b"})).collect();
    let cases = [
        (json!({"inputs": []}), "/samples/inputs"),
        (json!({"inputs": ["a"], "max_tokens": 0}), "/samples/max_tokens"),
        (json!({"inputs": ["a", ""]}), "/samples/inputs/1"),
        (json!({"inputs": ["a ".repeat(200)]}), "/samples/inputs/0"),
        (json!({"inputs": [{"messages": []}]}), "/samples/inputs/0"),
        (json!({"inputs": ["a"], "words": 3}), "/samples"),
    ];
    for (samples, pointer) in cases {
        let response = app.post("/jobs", &json!({"examples": rows, "samples": samples}));
        assert_eq!(response.status, 422, "{samples}: {}", response.text());
        let found = response.json()["errors"][0]["pointer"].as_str().unwrap().to_string();
        assert!(found.starts_with(pointer), "{samples}: {}", response.text());
    }
    let classes: Vec<Value> = (0..12).map(|index| json!({"text": format!("a {index}"), "label": index % 2})).collect();
    let response = app.post("/jobs", &json!({"examples": classes, "samples": {"inputs": ["a"]}}));
    assert_eq!(
        (response.status, &response.json()["errors"][0]["pointer"]),
        (422, &json!("/samples")),
        "{}",
        response.text()
    );
    let auto = json!({"examples": rows, "method": {"type": "auto"}, "samples": {"inputs": ["a"]}});
    let response = app.post("/jobs", &auto);
    assert_eq!(
        (response.status, &response.json()["errors"][0]["pointer"]),
        (422, &json!("/samples")),
        "{}",
        response.text()
    );
}

#[test]
fn other_requests_are_answered_while_samples_are_tokenized() {
    let app = start_with_decoder("llama", &[]);
    let rows: Vec<Value> = (0..12).map(|index| json!({"prompt": format!("a {index}"), "completion": "b"})).collect();
    let inputs: Vec<String> = (0..16).map(|index| format!("text {index} of words ").repeat(4_000)).collect();
    let job = json!({"examples": rows, "samples": {"inputs": inputs}});
    let started = Instant::now();
    // More requests than the server has async threads.
    let slowest_probe = std::thread::scope(|scope| {
        let check_job =
            || assert_eq!(app.post("/jobs?validate_only=true", &job).status, 422, "the inputs are too long");
        let checks: Vec<_> =
            (0..2 * std::thread::available_parallelism().unwrap().get()).map(|_| scope.spawn(check_job)).collect();
        let mut slowest = Duration::ZERO;
        while checks.iter().any(|check| !check.is_finished()) {
            let sent = Instant::now();
            assert_eq!(app.get("/health/live").status, 200);
            slowest = slowest.max(sent.elapsed());
        }
        slowest
    });
    let total = started.elapsed();
    assert!(slowest_probe < total / 4, "a request waited {slowest_probe:?} during {total:?} of tokenization");
}
