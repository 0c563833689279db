//! Tests of invalid job requests: errors name the field and the valid values.

use crate::api::error_cases::{ErrorCase, check_cases, error_case};
use crate::api::request::{bytes, post};
use crate::api::server_process::{ServerConfig, small_job};
use serde_json::{Value, json};

const UNKNOWN_ID: &str = "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f";

/// Valid job with these fields overridden.
fn valid_job_with(fields: Value) -> Value {
    small_job(12, fields)
}

/// Case of a table, named by its fields.
fn invalid_job(fields: Value, code: &'static str, pointer: &str, expected: &str) -> ErrorCase {
    error_case(fields.to_string(), post("/jobs", &valid_job_with(fields)), 422, code, expected).with_pointer(pointer)
}

#[test]
fn body_that_is_not_a_json_object_is_rejected_with_its_position() {
    let app = ServerConfig::new().start();
    let deep = format!("{{\"examples\": {}", "[".repeat(1000));
    let bodies: [(&str, &[u8], u16, &str, &str); 9] = [
        ("no body", b"", 400, "malformed_json", "empty"),
        ("a missing value", b"{\"name\": }", 400, "malformed_json", "line 1 column 10"),
        ("cut off", b"{\"name\": \"x\",\n", 400, "malformed_json", "line 2"),
        ("text behind it", b"{} and more", 400, "malformed_json", "trailing"),
        ("not UTF-8", b"{\"name\": \"\xff\"}", 400, "malformed_json", "not UTF-8 from byte 10"),
        ("too deep", deep.as_bytes(), 400, "malformed_json", "recursion limit"),
        ("a number beyond all", b"{\"hyperparameters\": {\"learning_rate\": 1e999}}", 400, "malformed_json", "number"),
        ("a list", b"[]", 422, "invalid_body", "must be an object"),
        ("a field given twice", b"{\"name\": \"a\", \"name\": \"b\"}", 422, "invalid_body", "duplicate field"),
    ];
    let json = |(name, body, status, code, expected): (&str, &[u8], u16, &'static str, &str)| {
        error_case(name, bytes("/jobs", "application/json", body), status, code, expected)
    };
    let mut cases: Vec<ErrorCase> = bodies.into_iter().map(json).collect();
    let body = valid_job_with(json!({})).to_string();
    for content_type in ["text/plain", "application/xml", ""] {
        let request = bytes("/jobs", content_type, body.as_bytes());
        cases.push(error_case(
            format!("as {content_type:?}"),
            request,
            415,
            "unsupported_media_type",
            "application/json",
        ));
    }
    check_cases(&app, cases);
}

#[test]
fn unknown_fields_values_and_wrong_types_are_located_by_pointer() {
    let app = ServerConfig::new().start();
    let unfit = |fields, pointer, expected| invalid_job(fields, "invalid_body", pointer, expected);
    check_cases(
        &app,
        vec![
            unfit(json!({"nmae": "x"}), "/nmae", "`name`"),
            unfit(json!({"method": {"type": "lora", "rnk": 8}}), "/method/rnk", "`rank`"),
            unfit(json!({"task": {"type": "sequence_classification", "poolng": "cls"}}), "/task/poolng", "`pooling`"),
            unfit(json!({"hyperparameters": {"epoch": 3}}), "/hyperparameters/epoch", "`epochs`"),
            unfit(
                json!({"hyperparameters": {"early_stopping": {"patience": 1, "metrics": "loss"}}}),
                "/hyperparameters/early_stopping/metrics",
                "`metric`",
            ),
            unfit(json!({"validation": {"share": 0.1}}), "/validation/share", "`fraction`"),
            unfit(
                json!({"validation": {"dataset_id": UNKNOWN_ID, "fraction": 0.1}}),
                "/validation/dataset_id",
                "exactly one field",
            ),
            unfit(json!({"method": {"type": "lara"}}), "/method/type", "`lora`"),
            unfit(json!({"method": {"rank": 8}}), "/method", "`type`"),
            unfit(json!({"method": "lora"}), "/method", "object"),
            unfit(json!({"method": ["lora"]}), "/method", "object"),
            unfit(json!({"task": {"type": "translation"}}), "/task/type", "`sequence_classification`"),
            unfit(json!({"task": {"type": "sequence_classification", "pooling": "max"}}), "/task/pooling", "`mean`"),
            unfit(json!({"hyperparameters": 3}), "/hyperparameters", ""),
            unfit(json!({"hyperparameters": {"epochs": 2.5}}), "/hyperparameters/epochs", "2.5"),
            unfit(json!({"hyperparameters": {"epochs": -1}}), "/hyperparameters/epochs", "-1"),
            unfit(json!({"hyperparameters": {"epochs": 1e12}}), "/hyperparameters/epochs", ""),
            unfit(json!({"hyperparameters": {"learning_rate": "fast"}}), "/hyperparameters/learning_rate", "fast"),
            unfit(json!({"hyperparameters": {"seed": -1}}), "/hyperparameters/seed", "-1"),
            unfit(json!({"hyperparameters": {"schedule": "step"}}), "/hyperparameters/schedule", "`linear`"),
            unfit(json!({"method": {"type": "lora", "rank": "eight"}}), "/method/rank", "eight"),
            unfit(json!({"method": {"type": "lora", "target_modules": 5}}), "/method/target_modules", ""),
            unfit(json!({"method": {"type": "lora", "layers": {"tops": 1}}}), "/method/layers", ""),
            unfit(json!({"columns": {"text": 3}}), "/columns/text", "string"),
            unfit(json!({"columns": ["text"]}), "/columns", "an object"),
            unfit(json!({"format": "xml"}), "/format", "`csv`"),
            unfit(json!({"separator": "ab"}), "/separator", "is not one of"),
            unfit(json!({"encoding": "utf-7"}), "/encoding", "windows-1252"),
            unfit(json!({"on_bad_rows": "ignore"}), "/on_bad_rows", "`skip`"),
            unfit(json!({"examples": "why?"}), "/examples", "a list"),
            unfit(json!({"dataset_id": "the-first"}), "/dataset_id", "UUID"),
            unfit(json!({"validation": {"dataset_id": 7}}), "/validation/dataset_id", "UUID"),
            unfit(json!({"name": 5}), "/name", "string"),
            unfit(json!({"name": ""}), "/name", "1 to 64"),
            unfit(json!({"name": "Two Words"}), "/name", "a-z"),
            unfit(json!({"name": "-first"}), "/name", "a letter or a digit"),
            unfit(json!({"name": "x".repeat(65)}), "/name", "64"),
            unfit(json!({"name": "a/../b"}), "/name", "a-z"),
            unfit(json!({"name": UNKNOWN_ID}), "/name", "no UUID"),
        ],
    );
}

#[test]
fn value_out_of_range_is_rejected_with_the_valid_range() {
    let app = ServerConfig::new().start();
    let job = |fields, pointer, expected| invalid_job(fields, "invalid_job", pointer, expected);
    let lora = |field: &str, value: Value| json!({"method": {"type": "lora", field: value}});
    let parameter = |field: &str, value: Value| json!({"hyperparameters": {field: value}});
    let stopping = |patience: u32, metric: &str| json!({"hyperparameters": {"early_stopping": {"patience": patience, "metric": metric}}});
    let modules = "/method/target_modules";
    check_cases(
        &app,
        vec![
            job(lora("rank", json!(0)), "/method/rank", "between 1 and"),
            job(lora("rank", json!(1_000_000)), "/method/rank", "between 1 and"),
            job(lora("alpha", json!(-1)), "/method/alpha", "above 0"),
            job(lora("dropout", json!(1.0)), "/method/dropout", "below 1"),
            job(lora("target_modules", json!(["querry"])), modules, "known are query"),
            job(lora("target_modules", json!("all_linear")), modules, "\"all-linear\""),
            job(lora("target_modules", json!([])), modules, "at least one"),
            job(lora("layers", json!({"top": 9})), "/method/layers", "between 1 and 2"),
            job(lora("layers", json!({"top": u64::MAX})), "/method/layers", "between 1 and 2"),
            job(lora("layers", json!({"from": 1, "to": 0})), "/method/layers", "from 0 to 1"),
            job(parameter("epochs", json!(0)), "/hyperparameters/epochs", "between 1 and"),
            job(parameter("epochs", json!(1_000_000)), "/hyperparameters/epochs", "between 1 and"),
            job(parameter("batch_size", json!(0)), "/hyperparameters/batch_size", "between 1 and"),
            job(parameter("learning_rate", json!(0)), "/hyperparameters/learning_rate", "above 0"),
            job(parameter("learning_rate", json!(7)), "/hyperparameters/learning_rate", "at most 1"),
            job(parameter("max_length", json!(3)), "/hyperparameters/max_length", "between 4 and 128"),
            job(parameter("max_length", json!(4_000_000_000u32)), "/hyperparameters/max_length", "between 4 and 128"),
            job(parameter("weight_decay", json!(-0.1)), "/hyperparameters/weight_decay", "between 0 and 1"),
            job(parameter("warmup_ratio", json!(2)), "/hyperparameters/warmup_ratio", "between 0 and 1"),
            job(parameter("max_grad_norm", json!(0)), "/hyperparameters/max_grad_norm", "above 0"),
            job(parameter("gradient_accumulation", json!(0)), "/hyperparameters/gradient_accumulation", "between 1"),
            job(parameter("max_steps", json!(0)), "/hyperparameters/max_steps", "at least 1"),
            job(stopping(0, "loss"), "/hyperparameters/early_stopping/patience", "at least 1"),
            job(stopping(1, "speed"), "/hyperparameters/early_stopping/metric", "macro_f1"),
            job(json!({"validation": {"fraction": 0.9}}), "/validation/fraction", "between 0 and 0.5"),
            job(json!({"validation": {"fraction": -0.1}}), "/validation/fraction", "between 0 and 0.5"),
        ],
    );
}

#[test]
fn examples_need_exactly_one_valid_source() {
    let app = ServerConfig::new().start();
    let send = |name: &str, body: Value, status, code, expected: &str| {
        error_case(name, post("/jobs", &body), status, code, expected)
    };
    let examples = |examples: Value| json!({"examples": examples});
    let two = json!([{"text": "a b", "label": "x"}, {"text": "c", "label": "y"}]);
    let validated_by = |id: Value| valid_job_with(json!({"validation": {"dataset_id": id}}));
    let strange =
        b"{\"text\": \"when will it arrive\", \"label\": \"fee\"}\n{\"text\": \"hm\", \"label\": \"weather\"}\n";
    let stranger = app.post_bytes("/datasets", "application/jsonl", strange).json()["id"].clone();
    let row = |fields: Value| examples(json!([{"text": "a", "label": "x"}, fields, {"text": "b", "label": "y"}]));
    check_cases(
        &app,
        vec![
            send("no data", json!({"name": "x"}), 422, "dataset_missing", "exactly one"),
            send("an empty object", json!({}), 422, "dataset_missing", "\"dataset_id\""),
            send(
                "two sources",
                valid_job_with(json!({"dataset_id": UNKNOWN_ID})),
                422,
                "dataset_missing",
                "exactly one",
            ),
            send("an unknown dataset", json!({"dataset_id": UNKNOWN_ID}), 404, "dataset_not_found", "GET /datasets"),
            send(
                "an unknown validation dataset",
                validated_by(json!(UNKNOWN_ID)),
                404,
                "dataset_not_found",
                UNKNOWN_ID,
            ),
            send(
                "validated by unknown labels",
                validated_by(stranger),
                422,
                "invalid_dataset",
                "the validation dataset",
            )
            .with_line(Some(2), "\"weather\""),
            send("inline CSV", valid_job_with(json!({"format": "csv"})), 422, "invalid_body", "format"),
            send("no examples", examples(json!([])), 422, "invalid_dataset", "no rows"),
            send("one label", examples(json!([{"text": "a", "label": "x"}])), 422, "invalid_dataset", "two labels"),
            send("a text", examples(json!(["a", "b"])), 422, "invalid_dataset", "")
                .with_pointer_and_message("/examples/0", "object"),
            send("no label", row(json!({"text": "c"})), 422, "invalid_dataset", "")
                .with_pointer_and_message("/examples/1", "\"label\""),
            send("a null", row(json!({"text": null, "label": "x"})), 422, "invalid_dataset", "")
                .with_pointer_and_message("/examples/1", "null"),
            send("a number for a text", row(json!({"text": 3, "label": "x"})), 422, "invalid_dataset", "")
                .with_pointer_and_message("/examples/1", "string"),
            send("a list for a label", row(json!({"text": "c", "label": ["x", "y"]})), 422, "invalid_dataset", "")
                .with_pointer_and_message("/examples/1", "has to be one label"),
            send("a text of spaces", row(json!({"text": " \n", "label": "x"})), 422, "invalid_dataset", "1 error")
                .with_pointer_and_message("/examples/1", "empty"),
            send(
                "columns that no task has",
                json!({"examples": two, "columns": {"txt": "text"}}),
                422,
                "invalid_dataset",
                "\"text_pair\"",
            ),
            send(
                "two fields of one column",
                json!({"examples": two, "columns": {"text": "label"}}),
                422,
                "invalid_dataset",
                "its own column",
            ),
            send(
                "a column that is missing",
                json!({"examples": two, "columns": {"text": "body"}}),
                422,
                "invalid_dataset",
                "",
            )
            .with_pointer_and_message("/examples/0", "\"body\""),
        ],
    );
}
