//! Tests of invalid prediction requests.

use crate::api::error_cases::{ErrorCase, check_cases, error_case};
use crate::api::request::{bytes, post};
use crate::api::server_process::{ServerConfig, small_job};
use serde_json::{Value, json};

#[test]
fn invalid_prediction_is_rejected_with_the_input_and_the_reason() {
    let app = ServerConfig::new().with_arguments(&["--max-inputs", "3", "--max-json", "10KB"]).start();
    app.train_to_success(&small_job(30, json!({"name": "questions", "hyperparameters": {"max_steps": 2}})));
    let one = json!(["why?"]);
    let but = |field: &str, value: Value| {
        let mut body = json!({"inputs": one});
        body[field] = value;
        body
    };
    let texts = |count: usize| json!({"inputs": vec!["a"; count]});
    let pair = |text: Value, pair: Value| json!({"inputs": ["a", {"text": text, "text_pair": pair}]});
    let bodies: [(&str, Value, &str, &str, &str); 22] = [
        ("no inputs", json!({}), "invalid_body", "", "`inputs`"),
        ("an empty list", texts(0), "no_inputs", "", "at least one"),
        ("too many inputs", texts(4), "too_many_inputs", "", "at most 3"),
        ("a text for a list", json!({"inputs": "why?"}), "invalid_body", "/inputs", "a list"),
        ("a number", json!({"inputs": ["a", 3]}), "invalid_body", "/inputs/1", "a text"),
        ("a null", json!({"inputs": [null]}), "invalid_body", "/inputs/0", "a text"),
        ("a list in the list", json!({"inputs": [["a", "b"]]}), "invalid_body", "/inputs/0", "a text"),
        ("an empty text", json!({"inputs": ["a", "", " \n"]}), "empty_input", "/inputs/1", "no text"),
        ("an unknown field", json!({"inputs": [{"txt": "a"}]}), "invalid_body", "/inputs/0/txt", "`text`"),
        ("a pair without text", json!({"inputs": [{"text_pair": "a"}]}), "empty_input", "/inputs/0", "no text"),
        ("no tokens", json!({"inputs": [{"tokens": []}]}), "empty_input", "/inputs/0", "no text"),
        ("a blank token", json!({"inputs": ["a", {"tokens": ["a", " "]}]}), "empty_input", "/inputs/1", "no text"),
        ("text and tokens", json!({"inputs": [{"text": "a", "tokens": ["a"]}]}), "two_texts", "/inputs/0", "either"),
        (
            "a token that is a number",
            json!({"inputs": [{"tokens": [1]}]}),
            "invalid_body",
            "/inputs/0/tokens/0",
            "string",
        ),
        ("a text that is a number", pair(json!(3), json!("a")), "invalid_body", "/inputs/1/text", "string"),
        ("a pair that is a number", pair(json!("a"), json!(3)), "invalid_body", "/inputs/1/text_pair", "string"),
        ("a pair that is a list", pair(json!("a"), json!(["b"])), "invalid_body", "/inputs/1/text_pair", "string"),
        ("top_k 0", but("top_k", json!(0)), "invalid_body", "/top_k", "1 or more"),
        ("top_k below 0", but("top_k", json!(-1)), "invalid_body", "/top_k", "-1"),
        ("top_k a expected", but("top_k", json!("all")), "invalid_body", "/top_k", "all"),
        ("logits a expected", but("logits", json!("yes")), "invalid_body", "/logits", "true or false"),
        ("a misspelt field", but("topk", json!(3)), "invalid_body", "/topk", "`top_k`"),
    ];
    let mut cases: Vec<ErrorCase> = Vec::new();
    for path in ["/predict", "/predict?adapter=questions"] {
        for (name, body, code, pointer, expected) in &bodies {
            let case = error_case(format!("{name} at {path}"), post(path, body), 422, code, expected);
            cases.push(if pointer.is_empty() { case } else { case.with_pointer(pointer) });
        }
    }
    let sent = |content_type: &str, body: &str| bytes("/predict?adapter=questions", content_type, body);
    let good = texts(1).to_string();
    let long = json!({"inputs": ["why ".repeat(3000)]}).to_string();
    cases.extend([
        error_case("nothing", sent("application/json", ""), 400, "malformed_json", "empty"),
        error_case("half an object", sent("application/json", "{\"inputs\": [\"a\""), 400, "malformed_json", "line 1"),
        error_case(
            "a form",
            sent("application/x-www-form-urlencoded", "inputs=a"),
            415,
            "unsupported_media_type",
            "json",
        ),
        error_case("no content type", sent("", &good), 415, "unsupported_media_type", "application/json"),
        error_case("too large", sent("application/json", &long), 413, "too_large", "10000 bytes"),
        error_case(
            "an unknown adapter",
            post("/predict?adapter=nobody", &texts(1)),
            404,
            "adapter_not_found",
            "\"nobody\"",
        ),
        error_case(
            "no adapter's name",
            post("/predict?adapter=", &texts(1)),
            404,
            "adapter_not_found",
            "GET /adapters",
        ),
        error_case(
            "a misspelt parameter",
            post("/predict?adaptor=questions", &texts(1)),
            422,
            "invalid_query",
            "`adapter`",
        ),
        error_case("two adapters", post("/predict?adapter=a&adapter=b", &texts(1)), 422, "invalid_query", "adapter"),
    ]);
    check_cases(&app, cases);
    assert_eq!(app.post("/predict?adapter=questions", &texts(3)).status, 200);
}
