//! Tests of parsing job requests.

use super::JobRequest;
use crate::http::error::ApiError;
use crate::http::json;
use espalier_core::training::Method;

fn parse_error(body: &str) -> (u16, String, String) {
    let ApiError { status, field_errors, detail, .. } = json::parse::<JobRequest>(body.as_bytes()).unwrap_err();
    let pointer = serde_json::to_value(&field_errors[0]).unwrap()["pointer"].as_str().unwrap().to_string();
    (status.as_u16(), pointer, detail)
}

#[test]
fn every_field_but_the_examples_is_optional() {
    let request: JobRequest = json::parse(b"{}").unwrap();
    assert!(request.name.is_none() && request.examples.is_none() && request.dataset_id.is_none());
    let nulls = br#"{"name": null, "task": null, "method": null, "validation": null, "examples": null}"#;
    assert!(json::parse::<JobRequest>(nulls).unwrap().method.is_none());
}

#[test]
fn every_field_of_a_full_request_is_read() {
    let body = br#"{"name": "support-intents", "task": {"type": "sequence_classification", "pooling": "cls"},
        "method": {"type": "lora", "rank": 4, "target_modules": "all-linear", "layers": {"top": 2}},
        "hyperparameters": {"epochs": 3, "early_stopping": {"patience": 2}}, "columns": {"label": "category"},
        "format": "csv", "on_bad_rows": "skip", "validation": {"fraction": 0.1},
        "dataset_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"}"#;
    let request: JobRequest = json::parse(body).unwrap();
    let Method::Single(method) = request.method.unwrap() else { panic!("the method is not auto") };
    assert_eq!(method.name(), "lora");
    assert_eq!(request.columns.unwrap()["label"], "category");
}

#[test]
fn invalid_field_is_located_by_its_pointer() {
    for (body, pointer) in [
        (r#"{"nam": "x"}"#, "/nam"),
        (r#"{"name": "Not A Name"}"#, "/name"),
        (r#"{"name": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"}"#, "/name"),
        (r#"{"task": {"type": "translation"}}"#, "/task/type"),
        (r#"{"task": {"type": "sequence_classification", "pooling": "max"}}"#, "/task/pooling"),
        (r#"{"method": {"type": "lora", "rnk": 8}}"#, "/method/rnk"),
        (r#"{"method": {"type": "lora", "rank": "8"}}"#, "/method/rank"),
        (r#"{"method": {"type": "lora", "rank": -1}}"#, "/method/rank"),
        (r#"{"method": {"type": "lora", "target_modules": 3}}"#, "/method/target_modules"),
        (r#"{"method": {"type": "lora", "layers": {"tops": 2}}}"#, "/method/layers"),
        (r#"{"method": {"type": "adalora"}}"#, "/method/type"),
        (r#"{"method": {"type": "head", "rank": 8}}"#, "/method/rank"),
        (r#"{"method": {"type": "auto", "candidate": []}}"#, "/method/candidate"),
        (r#"{"method": {"type": "auto", "budget": {"seconds": 8}}}"#, "/method/budget/seconds"),
        (
            r#"{"method": {"type": "auto", "candidates": [{"type": "head"}, {"type": "lora", "rnk": 8}]}}"#,
            "/method/candidates/1/rnk",
        ),
        (
            r#"{"method": {"type": "auto", "candidates": [{"type": "auto"}, {"type": "head"}]}}"#,
            "/method/candidates/0/type",
        ),
        (
            r#"{"method": {"type": "auto", "candidates": [{"type": "head", "hyperparameters": {"epochs": 8}}]}}"#,
            "/method/candidates/0/hyperparameters/epochs",
        ),
        (r#"{"method": "lora"}"#, "/method"),
        (r#"{"method": ["lora"]}"#, "/method"),
        (r#"{"hyperparameters": {"learning_rat": 0.1}}"#, "/hyperparameters/learning_rat"),
        (r#"{"hyperparameters": {"epochs": 1.5}}"#, "/hyperparameters/epochs"),
        (r#"{"hyperparameters": {"schedule": "step"}}"#, "/hyperparameters/schedule"),
        (r#"{"hyperparameters": {"early_stopping": {"patience": "x"}}}"#, "/hyperparameters/early_stopping/patience"),
        (r#"{"hyperparameters": {"early_stopping": {}}}"#, "/hyperparameters/early_stopping"),
        (r#"{"hyperparameters": [3]}"#, "/hyperparameters"),
        (r#"{"validation": {"fraction": "a tenth"}}"#, "/validation/fraction"),
        (r#"{"validation": {"share": 0.1}}"#, "/validation/share"),
        (r#"{"columns": {"text": 3}}"#, "/columns/text"),
        (r#"{"format": "docx"}"#, "/format"),
        (r#"{"on_bad_rows": "ignore"}"#, "/on_bad_rows"),
        (r#"{"examples": {"text": "a"}}"#, "/examples"),
        (r#"{"dataset_id": "mine"}"#, "/dataset_id"),
        (r#"{"examples": [{"text": "a"}], "method": {"type": "lora", "rnk": 8}}"#, "/method/rnk"),
    ] {
        let (status, found, detail) = parse_error(body);
        assert_eq!((status, found.as_str()), (422, pointer), "{body}: {detail}");
    }
}
