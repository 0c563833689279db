//! Tests of the error positions and messages of [`parse`].

use super::*;
use axum::http::StatusCode;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Request {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "method", deserialize_with = "deserialize_object")]
    _method: Option<Method>,
    #[serde(rename = "inputs")]
    _inputs: Vec<Input>,
    #[serde(rename = "place")]
    _location: Option<Location>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Location {
    Line(#[expect(dead_code, reason = "only deserialization is tested")] u32),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Method {
    Lora(#[expect(dead_code, reason = "only deserialization is tested")] Lora),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lora {
    #[serde(rename = "rank")]
    _rank: u32,
    #[serde(rename = "layers", default)]
    _layers: Option<Layers>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Layers {
    Top { _top: u32 },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(rename = "text")]
    _text: String,
}

/// Request with the fields of another struct.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flattened {
    #[serde(rename = "inputs")]
    _inputs: Vec<Input>,
    #[serde(flatten)]
    _options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    #[serde(rename = "limit")]
    _limit: Option<u32>,
    #[serde(rename = "bias")]
    _bias: Option<std::collections::BTreeMap<String, f32>>,
}

fn parse_error(body: &str) -> ApiError {
    parse::<Request>(body.as_bytes()).unwrap_err()
}

fn error_pointer(body: &str) -> String {
    let error = parse_error(body);
    assert_eq!(error.status, StatusCode::UNPROCESSABLE_ENTITY, "{error:?}");
    serde_json::to_value(&error.field_errors[0]).unwrap()["pointer"].as_str().unwrap().to_string()
}

#[test]
fn malformed_json_is_rejected_with_its_position() {
    for (body, position) in [("{\"name\": }", "line 1 column 10"), ("{\n", "line 2"), ("{} x", "line 1 column 4")] {
        let error = parse_error(body);
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert!(error.detail.contains(position), "{}", error.detail);
    }
    assert!(parse_error("").detail.contains("empty"));
}

#[test]
fn truncated_json_is_malformed_even_after_an_unknown_field() {
    assert_eq!(parse_error("{\"nam\": 1").status, StatusCode::BAD_REQUEST);
}

#[test]
fn invalid_field_is_located_by_its_pointer() {
    for (body, pointer) in [
        (r#"{"nam": "x"}"#, "/nam"),
        (r#"{"a/b~c": 1}"#, "/a~1b~0c"),
        (r#"{"name": 5}"#, "/name"),
        (r#"{"inputs": [{"text": "a"}, {"text": 3}]}"#, "/inputs/1/text"),
        (r#"{"inputs": [{"text": "a", "txt": "b"}]}"#, "/inputs/0/txt"),
        (r#"{"inputs": [{}]}"#, "/inputs/0"),
        (r#"[]"#, ""),
        (r#"["x"]"#, ""),
        (r#"3"#, ""),
        (r#"{"method": ["lora", 8]}"#, "/method"),
    ] {
        assert_eq!(error_pointer(body), pointer, "{body}");
    }
}

#[test]
fn wrong_field_inside_a_tagged_union_is_located() {
    for (body, pointer) in [
        (r#"{"name": "x", "method": {"type": "lora", "rank": 8, "rnk": 1}}"#, "/method/rnk"),
        (r#"{"method": {"type": "lora", "rank": "eight"}}"#, "/method/rank"),
        (r#"{"method": {"type": "lora", "rank": 8, "layers": {"tops": 1}}}"#, "/method/layers"),
        (r#"{"method": {"type": "lara", "rank": 8}}"#, "/method/type"),
        (r#"{"method": {"rank": 8}}"#, "/method"),
        (r#"{"method": {"type": "lora"}}"#, "/method"),
    ] {
        assert_eq!(error_pointer(body), pointer, "{body}");
    }
}

#[test]
fn duplicate_field_is_rejected() {
    assert!(parse_error(r#"{"name": "a", "name": "b"}"#).detail.contains("duplicate field `name`"));
}

#[test]
fn detail_does_not_leak_rust_type_names() {
    for (body, words) in [
        (r#"{"method": "lora"}"#, "must be an object with a \"type\""),
        (r#"{"inputs": "a"}"#, "must be a list, not the string \"a\""),
        (r#"{"inputs": ["a"]}"#, "must be an object"),
    ] {
        let detail = parse_error(body).detail;
        assert!(detail.contains(words), "{detail}");
    }
}

#[test]
fn detail_lists_the_expected_fields() {
    assert!(parse_error(r#"{"nam": "x"}"#).detail.contains("expected one of `name`, `method`, `inputs`, `place`"));
}

#[test]
fn wrong_field_beside_or_in_a_flattened_struct_is_located() {
    let long = "a".repeat(2 * MAX_SEARCHED_BYTES);
    for (body, pointer) in [
        (r#"{"inputs": [], "limi": 3}"#, "/limi"),
        (&format!(r#"{{"inputs": [{{"text": "{long}"}}], "a/b": 3}}"#), "/a~1b"),
        (r#"{"inputs": [], "limit": "x"}"#, "/limit"),
        (r#"{"inputs": [], "bias": {"3": 1, "4": "x"}}"#, "/bias/4"),
        (r#"{"inputs": [{"txt": "a"}], "limit": 3}"#, "/inputs/0/txt"),
        (r#"{"limit": 3}"#, ""),
    ] {
        let error = parse::<Flattened>(body.as_bytes()).unwrap_err();
        let found = serde_json::to_value(&error.field_errors[0]).unwrap()["pointer"].clone();
        assert_eq!(found, pointer, "{}", error.detail);
    }
}
