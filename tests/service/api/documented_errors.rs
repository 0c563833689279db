//! Tests that the answers to wrong requests are documented: their status and content type are in the OpenAPI document.

use crate::api::request::{Request, bytes, get, request_without_body};
use crate::api::server_process::{HttpResponse, ServerConfig};
use espalier::http::openapi_document;
use serde_json::{Value, json};

/// Operation of the document: method, path and description.
struct Operation {
    method: &'static str,
    path: String,
    description: Value,
}

fn operations(document: &Value) -> Vec<Operation> {
    let methods = [("GET", "get"), ("POST", "post"), ("DELETE", "delete")];
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        methods.iter().filter_map(move |(method, name)| {
            Some(Operation { method, path: path.clone(), description: item.get(name)?.clone() })
        })
    });
    operations.collect()
}

/// Wrong requests of an operation; each has one fault.
fn wrong_requests(operation: &Operation) -> Vec<(String, Request)> {
    let Operation { method, path, description } = operation;
    let with_parameter = |value: &str| {
        let (start, rest) = path.split_once('{').unwrap();
        format!("{start}{value}{}", rest.split_once('}').unwrap().1)
    };
    let send = |path: &str| match description.get("requestBody") {
        Some(_) => bytes(path, "application/json", "{}"),
        None => request_without_body(method, path),
    };
    let has_parameter = path.contains('{');
    let valid_path = if has_parameter { with_parameter("01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f") } else { path.clone() };
    let mut requests = vec![
        ("nothing".to_string(), send(&valid_path)),
        ("an unknown parameter".to_string(), send(&format!("{valid_path}?unknown=1"))),
        ("a foreign cursor".to_string(), send(&format!("{valid_path}?after=01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"))),
        ("a wrong event id".to_string(), send(&valid_path).with_header("last-event-id", "x")),
        ("another origin".to_string(), send(&valid_path).with_header("origin", "https://evil.example")),
    ];
    if has_parameter {
        requests.extend(
            ["%FF", "x", "a%2Fb@c", "%20"].map(|value| (format!("the id {value}"), send(&with_parameter(value)))),
        );
    }
    if description.get("requestBody").is_some() {
        for content_type in ["application/json", "text/plain", "multipart/form-data", "image/png"] {
            for body in [
                "",
                "{",
                "[]",
                "{\"unknown\": 1}",
                "{\"inputs\": []}",
                "{\"inputs\": [\"\"]}",
                "{\"model\": \"x\", \"messages\": []}",
                "{\"model\": \"x\", \"prompt\": \"a\"}",
                "{\"examples\": []}",
            ] {
                requests.push((format!("{content_type}: {body}"), bytes(&valid_path, content_type, body)));
            }
        }
        let large = "x".repeat(100_000);
        requests.push(("a large body".to_string(), bytes(&valid_path, "application/json", large.clone())));
        requests.push(("a large file".to_string(), bytes(&valid_path, "text/csv", large)));
    }
    requests
}

/// Follows a reference of the document.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Returns why the response is not as documented.
fn undocumented(document: &Value, operation: &Operation, answer: &HttpResponse) -> Option<String> {
    // A redirect is followed, so that the status of a success may be another operation's.
    if answer.status < 400 {
        return None;
    }
    let responses = &operation.description["responses"];
    let Some(response) = responses.get(answer.status.to_string()) else {
        return Some(format!("the status {} is not documented", answer.status));
    };
    let content = resolve(document, response)["content"].as_object().unwrap();
    let content_type = answer.header("content-type").unwrap_or_default();
    let Some(media) = content.get(content_type) else {
        return Some(format!("the content type {content_type} of {} is not documented", answer.status));
    };
    let schema = resolve(document, &media["schema"]);
    let is_required = |field: &Value| answer.json().get(field.as_str().unwrap()).is_some();
    (!schema["required"].as_array().unwrap().iter().all(is_required)).then(|| "a required field is missing".to_string())
}

#[test]
fn every_error_is_documented_and_logs_are_json() {
    let app = ServerConfig::new()
        .with_arguments(&["--role", "api", "--max-json", "50000", "--max-dataset", "50000", "--max-adapter", "50000"])
        .start();
    let document = serde_json::to_value(openapi_document()).unwrap();
    let (mut failures, mut statuses) = (Vec::new(), std::collections::BTreeSet::new());
    for operation in operations(&document) {
        for (fault, request) in wrong_requests(&operation) {
            let answer = request.send(&app);
            statuses.insert(answer.status);
            assert!(answer.status < 500, "{} {}, {fault}: {}", operation.method, operation.path, answer.text());
            if let Some(reason) = undocumented(&document, &operation, &answer) {
                failures.push(format!("{} {}, {fault}: {reason}: {}", operation.method, operation.path, answer.text()));
            }
        }
    }
    assert!(failures.is_empty(), "{} undocumented answers:\n{}", failures.len(), failures.join("\n"));
    let unknown = get("/v1/jobs").send(&app);
    assert_eq!((unknown.status, unknown.json()["error"]["code"].as_str()), (404, Some("route_not_found")));
    let expected = [400, 403, 404, 413, 415, 422];
    assert!(expected.iter().all(|status| statuses.contains(status)), "{statuses:?}");
    for line in app.log() {
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "not JSON: {line}");
    }
}

/// What the handlers refuse is invalid by the schema.
#[test]
fn schema_excludes_empty_lists_and_values_out_of_range() {
    let document = serde_json::to_value(openapi_document()).unwrap();
    let keyword = |schema: &str, field: &str, keyword: &str| {
        let schema = &document["components"]["schemas"][schema];
        let parts = std::iter::once(schema).chain(schema["allOf"].as_array().into_iter().flatten());
        parts.map(|part| part["properties"][field][keyword].clone()).find(|value| !value.is_null()).unwrap_or_default()
    };
    for (schema, field, name, expected) in [
        ("PredictRequest", "inputs", "minItems", json!(1)),
        ("PredictRequest", "top_k", "maximum", json!(100)),
        ("GenerateRequest", "inputs", "minItems", json!(1)),
        ("GenerateRequest", "max_tokens", "minimum", json!(1)),
        ("Conversation", "messages", "minItems", json!(1)),
        ("ChatRequest", "messages", "minItems", json!(1)),
        ("ChatRequest", "n", "maximum", json!(128)),
        ("CompletionRequest", "logprobs", "maximum", json!(20)),
        ("SamplingParams", "min_p", "maximum", json!(1)),
    ] {
        assert_eq!(keyword(schema, field, name), expected, "{schema}.{field}");
    }
}
