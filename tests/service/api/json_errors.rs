//! Tests of every JSON request with wrong values, made from the examples in the OpenAPI document: errors name the field in the terms of
//! JSON.

use crate::api::generation::start_with_decoder;
use crate::api::request::{bytes, get, parts, post, request_without_body};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess};
use espalier::http::openapi_document;
use serde_json::{Value, json};

/// Words of Rust and serde that no client knows.
const RUST_WORDS: [&str; 22] = [
    "f32",
    "f64",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
    "i8",
    "i16",
    "i32",
    "i64",
    "isize",
    "struct",
    "enum",
    "variant",
    "tuple",
    "newtype",
    "serde",
    "Option",
    "untagged",
    "ParseIntError",
    "unwrap",
];
const SERDE_PHRASES: [&str; 4] = ["invalid type", "invalid value", "invalid digit", "did not match"];

/// Path, example and properties of every request with a JSON body.
fn json_requests() -> Vec<(String, Value, Vec<String>)> {
    let document = serde_json::to_value(openapi_document()).unwrap();
    let mut requests = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let content = &item["post"]["requestBody"]["content"]["application/json"];
        let Some(schema) = content.get("schema") else { continue };
        let schema = resolve(&document, schema);
        let example = content.get("example").or(schema.get("example")).cloned().unwrap_or_else(|| json!({}));
        requests.push((path.replace("{id}", "x").replace("{model}", "x"), example, properties(&document, &schema)));
    }
    requests
}

fn resolve(document: &Value, value: &Value) -> Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => value.clone(),
    }
}

fn properties(document: &Value, schema: &Value) -> Vec<String> {
    let schema = resolve(document, schema);
    let own = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let parts = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| properties(document, part));
    own.chain(parts).collect()
}

/// Pointers of all values in a document, except the whole.
fn pointers(value: &Value, prefix: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.replace('/', "~1"), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => return,
    };
    for (name, value) in children {
        let pointer = format!("{prefix}/{name}");
        pointers(value, &pointer, found);
        found.push(pointer);
    }
}

fn wrong_values() -> Vec<Value> {
    vec![json!(true), json!(-1), json!(1.5), json!(1e12), json!("a text"), json!([]), json!([[1]]), json!({"weird": 1})]
}

/// Words of the error that a client cannot know.
fn unknown_words(text: &str) -> Vec<&str> {
    let words = text.split(|character: char| !character.is_alphanumeric()).filter(|word| RUST_WORDS.contains(word));
    words.chain(SERDE_PHRASES.into_iter().filter(|phrase| text.contains(phrase))).collect()
}

fn mismatch(path: &str, pointer: &str, value: &Value, answer: &HttpResponse) -> Option<String> {
    let text = answer.text();
    let words = if answer.status >= 400 { unknown_words(&text) } else { Vec::new() };
    let mut reasons: Vec<String> = words.into_iter().map(str::to_string).collect();
    if answer.status >= 500 && answer.status != 503 {
        reasons.push(format!("status {}", answer.status));
    }
    // A wrong type is an error of the field.
    let error: Value = serde_json::from_str(&text).unwrap_or_default();
    let (code, place) = match path.starts_with("/v1/") {
        true => (
            error["error"]["code"].clone(),
            error["error"]["param"]
                .as_str()
                .map(|param| format!("/{}", param.replace(['.', '['], "/").replace(']', ""))),
        ),
        false => (error["code"].clone(), error["errors"][0]["pointer"].as_str().map(str::to_string)),
    };
    let field = pointer.split('/').nth(1).unwrap_or_default();
    let is_at_field = place.as_deref().is_some_and(|place| place.split('/').nth(1) == Some(field));
    if code == "invalid_body" && !is_at_field {
        reasons.push(format!("names {place:?}"));
    }
    (!reasons.is_empty()).then(|| format!("{path} {pointer} = {value}: {}\n    {text}", reasons.join(", ")))
}

fn check_requests(app: &ServerProcess, is_checked: impl Fn(&str) -> bool) {
    let model = app.get("/base").json()["name"].clone();
    let row =
        |text, label| json!({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]});
    let rows = [row("a", "x"), row("b", "y"), row("c", "x"), row("d", "y")].map(|row| format!("{row}\n")).concat();
    let purpose = ("content-disposition: form-data; name=\"purpose\"", b"fine-tune".as_slice());
    let content = ("content-disposition: form-data; name=\"file\"; filename=\"rows.jsonl\"", rows.as_bytes());
    let stored = parts("/v1/files", &[purpose, content]).send(app);
    assert_eq!(stored.status, 200, "{}", stored.text());
    let file = stored.json()["id"].clone();
    let mut failures = Vec::new();
    let mut count = 0;
    for (path, mut example, properties) in json_requests().into_iter().filter(|(path, ..)| is_checked(path)) {
        for (field, value) in [("model", &model), ("training_file", &file)] {
            if example.get(field).is_some() {
                example[field] = value.clone();
            }
        }
        let mut places: Vec<String> = properties.iter().map(|name| format!("/{name}")).collect();
        pointers(&example, "", &mut places);
        places.sort();
        places.dedup();
        for pointer in places {
            for value in wrong_values() {
                let mut body = example.clone();
                match body.pointer_mut(&pointer) {
                    Some(place) => *place = value.clone(),
                    None => body[&pointer[1..]] = value.clone(),
                }
                count += 1;
                let answer = app.post(&path, &body);
                failures.extend(mismatch(&path, &pointer, &value, &answer));
                let is_list_for_object = value.is_array() && example.pointer(&pointer).is_some_and(Value::is_object);
                if is_list_for_object && answer.status < 300 {
                    failures.push(format!("{path} {pointer}: a list is read as an object"));
                }
            }
        }
    }
    assert!(count > 100, "{count} requests");
    assert!(failures.is_empty(), "{} of {count} requests:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn wrong_values_are_named_in_the_terms_of_json_on_an_encoder() {
    let app = ServerConfig::new().with_arguments(&["--role", "api", "--max-queued-jobs", "1"]).start();
    check_requests(&app, |_| true);
}

#[test]
fn wrong_values_are_named_in_the_terms_of_json_on_a_decoder() {
    let app = start_with_decoder("llama", &["--role", "api", "--max-queued-jobs", "1"]);
    check_requests(&app, |path| path.starts_with("/v1/") || path == "/generate");
}

#[test]
fn wrong_query_parameters_are_named() {
    let app = ServerConfig::new().start();
    for (path, field) in [
        ("/jobs?limit=many", "limit"),
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=99999999999", "limit"),
        ("/jobs?after=x", "after"),
        ("/jobs?page=2", "page"),
        ("/jobs?limit=1&limit=2", "limit"),
        ("/jobs?status=done", "status"),
        ("/v1/files?limit=-1", "limit"),
        ("/v1/fine_tuning/jobs?limit=x", "limit"),
        ("/v1/fine_tuning/jobs?after=x", "after"),
        ("/v1/files?after=", "after"),
    ] {
        let answer = get(path).send(&app);
        let error = answer.json();
        assert!(unknown_words(&answer.text()).is_empty(), "{path}: {}", answer.text());
        match path.starts_with("/v1/") {
            true => assert_eq!((answer.status, &error["error"]["param"]), (400, &json!(field)), "{path}: {error}"),
            false => assert_eq!(
                (answer.status, &error["errors"][0]["pointer"]),
                (422, &json!(format!("/{field}"))),
                "{path}: {error}"
            ),
        }
    }
}

#[test]
fn text_of_a_body_is_read_as_clients_write_it() {
    let app = ServerConfig::new().start();
    let predict = |body: &[u8], content_type: &str| bytes("/predict", content_type, body).send(&app);
    let marked = predict("\u{feff}{\"inputs\": [\"a\"]}".as_bytes(), "application/json");
    assert_eq!(marked.status, 200, "{}", marked.text());
    let lone = predict(br#"{"inputs": ["a \ud800 b", "a \ufffd b"]}"#, "application/json");
    assert_eq!(lone.status, 200, "{}", lone.text());
    assert_eq!(lone.json()["predictions"][0], lone.json()["predictions"][1]);
    let pair = predict(br#"{"inputs": ["\ud83d\ude00", "\ud83d\ude00"]}"#, "application/json");
    assert_eq!(pair.status, 200);
    let wide: Vec<u8> = "{\"inputs\": [\"a\"]}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = predict(&wide, "application/json");
    assert!(wide.status == 400 && wide.text().contains("UTF-16"), "{}", wide.text());
    let latin = predict(b"{\"inputs\": [\"caf\xe9\"]}", "application/json; charset=ISO-8859-1");
    assert!(latin.status == 415 && latin.text().contains("iso-8859-1"), "{}", latin.text());
    // ASCII is the same in both.
    assert_eq!(predict(b"{\"inputs\": [\"a\"]}", "application/json; charset=ISO-8859-1").status, 200);
    let openai = bytes("/v1/embeddings", "application/json", b"{\"model\": \"\xff\"}".as_slice()).send(&app);
    assert_eq!((openai.status, &openai.json()["error"]["code"]), (400, &json!("malformed_json")), "{}", openai.text());
}

#[test]
fn paths_are_read_in_every_form_that_clients_send() {
    let app = ServerConfig::new().start();
    let model = app.get("/base").json()["name"].as_str().unwrap().to_string();
    let body = json!({"model": model, "input": "a"});
    let expected = app.post("/v1/embeddings", &body).json();
    for path in [
        "//v1/embeddings".to_string(),
        "/v1//embeddings/".to_string(),
        "/openai/v1/embeddings?api-version=preview".to_string(),
        format!("/openai/deployments/{model}/embeddings?api-version=2024-10-21"),
    ] {
        assert_eq!(app.post(&path, &body).json(), expected, "{path}");
    }
    let path = format!("/openai/deployments/{model}/embeddings?api-version=2024-10-21");
    assert_eq!(app.post(&path, &json!({"input": "a"})).json(), expected);
    let other = app.post(&path, &json!({"model": "other", "input": "a"}));
    assert_eq!((other.status, &other.json()["error"]["param"]), (400, &json!("model")));
    assert_eq!(get("/jobs/").send(&app).status, 200);
    assert_eq!(get("/openai/files?api-version=1&limit=2").send(&app).status, 200);
    assert_eq!(get("/docs/").send(&app).header("content-type"), Some("text/html"));
    for (request, status) in [
        (get("/v1"), 404),
        (get("/v1/nothing"), 404),
        (post("/v1/models", &json!({})), 405),
        (request_without_body("PUT", "/v1/chat/completions"), 405),
        (get("/openai/nothing"), 404),
    ] {
        let answer = request.send(&app);
        let error = answer.json()["error"].clone();
        assert_eq!(
            (answer.status, error["type"].as_str()),
            (status, Some("invalid_request_error")),
            "{}",
            answer.text()
        );
        assert!(answer.header("openai-processing-ms").is_some());
    }
}
