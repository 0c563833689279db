//! Tests of the rows that a dataset and a job's validation examples return.

use crate::api::server_process::{ServerConfig, ServerProcess};
use serde_json::{Value, json};
use std::fmt::Write;

/// Rows of two labels that their texts do not tell apart.
fn csv(rows: usize) -> String {
    let mut csv = "text,label\n".to_string();
    for row in 0..rows {
        writeln!(csv, "the same words {row},{}", ["card", "pin"][row / 3 % 2]).unwrap();
    }
    csv
}

fn lines(page: &Value) -> Vec<u64> {
    page["data"].as_array().unwrap().iter().map(|example| example["line"].as_u64().unwrap()).collect()
}

fn upload(app: &ServerProcess, name: &str, content: &str) -> String {
    let answer = app.post_file("/datasets", ("options", &json!({})), ("dataset", name, content.as_bytes()));
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_string()
}

#[test]
fn examples_of_a_dataset_are_read_in_pages_and_by_line() {
    let app = ServerConfig::new().start();
    let path = format!("/datasets/{}/examples", upload(&app, "rows.csv", &csv(45)));
    let first = app.get(&path).json();
    assert_eq!((lines(&first), &first["next"]), ((2..22).collect(), &json!(20)));
    assert_eq!(
        first["data"][0],
        json!({"line": 2, "text": "the same words 0", "text_pair": null, "target": {"label": "card"}})
    );
    let last = app.get(&format!("{path}?after=40&limit=10")).json();
    assert_eq!((lines(&last), &last["next"]), ((42..47).collect(), &json!(null)));
    assert_eq!(lines(&app.get(&format!("{path}?lines=7,3,900")).json()), [3, 7]);
    for query in ["limit=0", "limit=101", "lines=a", "lines=3&limit=2"] {
        let refused = app.get(&format!("{path}?{query}"));
        assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("invalid_query")), "{query}");
    }
    assert_eq!(app.get("/datasets/01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f/examples").status, 404);
    let one_line = r#"[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "c", "label": "x"}, {"text": "d", "label": "y"}]"#;
    let path = format!("/datasets/{}/examples", upload(&app, "rows.json", one_line));
    let page = app.get(&format!("{path}?limit=3")).json();
    assert_eq!((lines(&page).len(), &page["next"]), (3, &json!(3)));
    assert_eq!(app.get(&format!("{path}?after=3")).json()["data"][0]["text"], "d");
}

#[test]
fn lines_of_the_metrics_are_those_of_the_validation_examples() {
    let app = ServerConfig::new().start();
    let job = json!({"method": {"type": "head"}, "hyperparameters": {"epochs": 1}});
    let sent = app.post_file("/jobs", ("job", &job), ("dataset", "rows.csv", csv(90).as_bytes()));
    let job = app.wait_for_job(sent.json()["id"].as_str().unwrap());
    let validation = &job["metrics"]["validation"];
    let cells = validation["example_lines"].as_array().unwrap();
    assert!(!cells.is_empty(), "{validation}");
    let path = format!("/jobs/{}/validation-examples", job["id"].as_str().unwrap());
    for cell in cells {
        let wanted: Vec<String> =
            cell["lines"].as_array().unwrap().iter().map(|line| line.as_u64().unwrap().to_string()).collect();
        let page = app.get(&format!("{path}?lines={}", wanted.join(","))).json();
        assert_eq!(page["data"].as_array().unwrap().len(), wanted.len());
        for example in page["data"].as_array().unwrap() {
            assert_eq!(example["target"]["label"], cell["label"]);
        }
    }
    let examples: u64 =
        validation["calibration_bins"].as_array().unwrap().iter().map(|bin| bin["examples"].as_u64().unwrap()).sum();
    assert_eq!(json!(examples), validation["examples"]);
    // They are no part of the adapter, whose version they would change.
    let adapter = app.get(&format!("/adapters/{}", job["adapter_id"].as_str().unwrap())).json();
    assert_eq!(adapter["metrics"]["validation"].get("example_lines"), None);
}

#[test]
fn a_job_that_is_validated_only_has_an_estimate() {
    let app = ServerConfig::new().start();
    let estimate = |epochs: u32| {
        let job = json!({"method": {"type": "lora"}, "hyperparameters": {"epochs": epochs}});
        let answer =
            app.post_file("/jobs?validate_only=true", ("job", &job), ("dataset", "rows.csv", csv(90).as_bytes()));
        answer.json()["estimated_seconds"].as_f64().unwrap()
    };
    let (short, long) = (estimate(1), estimate(1000));
    assert!(short > 0.0 && long > 2.0 * short, "{short} {long}");
}
