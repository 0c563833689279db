//! Tests that the OpenAPI document covers all routes and equals the committed `openapi.yaml`.

use espalier::http::{openapi_document, openapi_yaml};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The document, which takes a while to build.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(openapi_document()).unwrap());

/// Path, method and operation object of every operation.
fn operations() -> Vec<(String, String, Value)> {
    let document = &*DOCUMENT;
    let paths = document["paths"].as_object().unwrap().clone();
    let mut operations = Vec::new();
    for (path, item) in paths {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                operations.push((path.clone(), method.to_string(), operation.clone()));
            }
        }
    }
    operations
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let nested = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    nested.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn committed_document_equals_the_generated_one() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml")).unwrap_or_default();
    assert!(committed == openapi_yaml().unwrap(), "openapi.yaml is out of date: run `make openapi` and commit it");
}

#[test]
fn every_designed_endpoint_is_documented() {
    let documented: BTreeSet<String> =
        operations().into_iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let expected = [
        "post /jobs",
        "get /jobs",
        "get /jobs/{id}",
        "get /jobs/{id}/validation-examples",
        "post /jobs/{id}/cancel",
        "post /jobs/{id}/pause",
        "post /jobs/{id}/resume",
        "post /jobs/{id}/retry",
        "delete /jobs/{id}",
        "get /jobs/{id}/events",
        "post /datasets",
        "get /datasets",
        "get /datasets/{id}",
        "get /datasets/{id}/examples",
        "delete /datasets/{id}",
        "post /adapters",
        "get /adapters",
        "get /adapters/{id}",
        "post /adapters/{id}/activate",
        "delete /adapters/{id}",
        "get /adapters/{id}/download",
        "get /adapters/{id}/lineage",
        "get /adapters/{id}/shares",
        "put /adapters/{id}/shares",
        "get /shared-adapters",
        "get /keys",
        "post /keys",
        "get /keys/current",
        "get /keys/{id}",
        "delete /keys/{id}",
        "post /keys/{id}/rotate",
        "get /owners",
        "get /owners/{owner}",
        "put /owners/{owner}",
        "get /usage",
        "get /audit",
        "delete /owners/{owner}",
        "post /predict",
        "post /generate",
        "post /v1/chat/completions",
        "post /v1/completions",
        "post /v1/load_lora_adapter",
        "post /v1/unload_lora_adapter",
        "get /v1/models",
        "get /v1/models/{model}",
        "post /v1/embeddings",
        "post /v1/rerank",
        "post /v1/responses",
        "post /tokenize",
        "post /detokenize",
        "get /tokenizer_info",
        "post /v1/files",
        "get /v1/files",
        "get /v1/files/{id}",
        "get /v1/files/{id}/content",
        "delete /v1/files/{id}",
        "post /v1/fine_tuning/jobs",
        "get /v1/fine_tuning/jobs",
        "get /v1/fine_tuning/jobs/{id}",
        "post /v1/fine_tuning/jobs/{id}/cancel",
        "post /v1/fine_tuning/jobs/{id}/pause",
        "post /v1/fine_tuning/jobs/{id}/resume",
        "get /v1/fine_tuning/jobs/{id}/events",
        "get /v1/fine_tuning/jobs/{id}/checkpoints",
        "post /embed",
        "post /rerank",
        "post /similarity",
        "get /info",
        "post /webhooks",
        "get /webhooks",
        "get /webhooks/{id}",
        "delete /webhooks/{id}",
        "post /webhooks/{id}/enable",
        "post /webhooks/{id}/test",
        "get /webhooks/{id}/deliveries",
        "post /webhooks/{id}/deliveries/{delivery_id}/resend",
        "get /base",
        "get /bases",
        "get /health",
        "get /health/live",
        "get /health/ready",
        "get /metrics",
        "get /openapi.yaml",
        "get /docs",
        "get /",
        "get /dashboard/{file}",
        "get /session",
        "post /session",
        "delete /session",
        "get /docs/",
        "get /docs/{file}",
    ];
    assert_eq!(documented, expected.map(str::to_string).into());
}

/// A route added without `routes!` would be missing from the document.
#[test]
fn every_route_is_in_the_document() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let tests = path.file_name().is_some_and(|name| name == "tests.rs");
        for call in [".route(", ".route_service(", ".nest(", ".nest_service(", ".fallback("] {
            assert!(tests || !code.contains(call), "{}: {call} adds a route without documentation", path.display());
        }
    }
}

#[test]
fn every_operation_has_a_summary_and_error_responses() {
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
        let operation_name = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{operation_name} has no operation id"));
        assert!(ids.insert(id.to_string()), "the operation id {id} is used twice");
        assert!(operation["summary"].is_string(), "{operation_name} has no summary");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{operation_name} needs one tag");
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers.keys().any(|status| status.starts_with('2') || status.starts_with('3')),
            "{operation_name} has no success response"
        );
        if operation["security"] != serde_json::json!([{}]) {
            assert!(
                answers.contains_key("401") && answers.contains_key("500"),
                "{operation_name} lacks the common error responses"
            );
        }
        let (content_type, schema) = match path.starts_with("/v1/") {
            true => ("application/json", "#/components/schemas/OpenAiError"),
            false => ("application/problem+json", "#/components/schemas/Problem"),
        };
        for (status, answer) in answers.iter().filter(|(status, _)| status.as_str() >= "400") {
            assert_eq!(
                resolve(answer)["content"][content_type]["schema"]["$ref"],
                schema,
                "{operation_name}, {status}"
            );
        }
        assert!(!path.starts_with("/v1/") || !answers.contains_key("422"), "{operation_name}: OpenAI answers 400");
    }
}

#[test]
fn every_parameter_and_body_is_described() {
    for (path, method, operation) in operations() {
        let operation_name = format!("{method} {path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{operation_name}: {} is not described", parameter["name"]);
        }
        for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(
                parameters.iter().any(|parameter| parameter["name"] == name),
                "{operation_name}: {name} is not documented"
            );
        }
        let body = operation["requestBody"]["content"].as_object();
        assert!(body.is_none_or(|content| !content.is_empty()), "{operation_name} has an empty body");
    }
}

#[test]
fn every_json_body_has_an_example() {
    for (path, method, operation) in operations() {
        let answers = operation["responses"].as_object().unwrap().values();
        for body in answers.chain(operation.get("requestBody")).map(resolve) {
            let Some(content) = body["content"].get("application/json") else { continue };
            let example = content.get("example").or(content["schema"].get("example")).cloned();
            let example = example.or_else(|| resolve(&content["schema"]).get("example").cloned());
            assert!(example.is_some(), "{method} {path} has a JSON body without an example");
        }
    }
}

/// A variant whose settings forbid additional properties must list the tag, or no value is valid.
#[test]
fn tagged_union_accepts_its_tag() {
    let document = &*DOCUMENT;
    for (schema, tag) in [("Method", "lora"), ("Method", "head"), ("Task", "sequence_classification")] {
        let variants = document["components"]["schemas"][schema]["oneOf"].as_array().unwrap();
        let has_tag = |variant: &&Value| variant["properties"]["type"]["enum"] == serde_json::json!([tag]);
        let variant = variants.iter().find(has_tag).unwrap_or_else(|| panic!("{schema} has no {tag}"));
        assert_eq!(variant["additionalProperties"], false);
        assert_eq!(variant["required"], serde_json::json!(["type"]));
    }
}

/// Returns the target of a reference, or the value itself.
fn resolve(value: &Value) -> Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let document = &*DOCUMENT;
            document.pointer(reference.trim_start_matches('#')).cloned().unwrap_or_default()
        }
        None => value.clone(),
    }
}

#[test]
fn every_reference_resolves() {
    let document = &*DOCUMENT;
    let mut references = Vec::new();
    collect(document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} does not resolve");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_string));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
