//! Tests of response formats (JSON, JSON schema, regular expression) with an untrained base model.

use crate::api::server_process::{ServerConfig, ServerProcess};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};

fn start_with_decoder(model_type: &str) -> ServerProcess {
    ServerConfig::new().with_base_model(fixture("decoders").join(model_type)).start()
}

fn schema(schema: Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "asked", "strict": true, "schema": schema}})
}

/// Generated texts with their finish reasons.
fn generated_texts(app: &ServerProcess, format: &Value, fields: Value) -> Vec<(String, String)> {
    let mut request = json!({"inputs": ["a card", "The sum of 12", ""], "max_tokens": 100, "response_format": format});
    request["inputs"][2] = json!({"messages": [{"role": "user", "content": "hi"}]});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post("/generate", &request);
    assert_eq!(answer.status, 200, "{format}: {}", answer.text());
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_string();
    let generations = answer.json()["generations"].as_array().unwrap().clone();
    generations.iter().map(|one| (text(one, "text"), text(one, "finish_reason"))).collect()
}

/// JSON schema of an object with these required fields.
fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
    json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false,
        "$defs": {"size": {"const": "big"}}})
}

/// Texts generated with many seeds, parsed as JSON.
fn sampled_json(app: &ServerProcess, asked: &Value) -> Vec<Value> {
    let fields = |seed: u64| json!({"seed": seed, "temperature": if seed == 0 { 0.0 } else { 2.0 }});
    let texts = (0..6).flat_map(|seed| generated_texts(app, &schema(asked.clone()), fields(seed)));
    let parsed = texts.map(|(text, reason)| {
        assert_eq!(reason, "stop", "{text}");
        serde_json::from_str(&text).unwrap()
    });
    parsed.collect()
}

#[test]
fn sampled_output_matches_its_json_schema() {
    let plain = object(json!({
        "z": {"type": "boolean"},
        "l": {"enum": ["red", "gr\u{fc}n", "blue"]},
        "c": {"type": "integer", "minimum": -5, "maximum": 120},
    }));
    let nested = object(json!({
        "t": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        "a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/size"}]},
    }));
    for model_type in ["llama", "qwen3"] {
        let app = start_with_decoder(model_type);
        for found in sampled_json(&app, &plain) {
            let names: Vec<&String> = found.as_object().unwrap().keys().collect();
            assert_eq!(names, ["z", "l", "c"], "in the schema's order");
            assert!(found["z"].is_boolean());
            assert!(["red", "gr\u{fc}n", "blue"].contains(&found["l"].as_str().unwrap()), "{found}");
            assert!((-5..=120).contains(&found["c"].as_i64().unwrap()), "{found}");
        }
        for found in sampled_json(&app, &nested) {
            let tags = found["t"].as_array().unwrap();
            assert!(tags.len() <= 2 && tags.iter().all(|tag| tag.as_str().unwrap().chars().count() <= 3), "{found}");
            assert!(found["a"].is_null() || found["a"] == "big", "{found}");
        }
    }
}

#[test]
fn formats_of_other_servers_are_read() {
    let app = start_with_decoder("qwen2");
    let schema = object(json!({"c": {"enum": ["red", "blue"]}}));
    let expected = generated_texts(
        &app,
        &json!({"type": "json_schema", "json_schema": {"schema": schema}}),
        json!({"temperature": 0.0}),
    );
    assert!(expected.iter().all(|(text, _)| text.contains("\"c\"")), "{expected:?}");
    for format in [
        json!({"type": "json_object", "schema": schema}),
        json!({"type": "json_object", "value": schema}),
        json!({"type": "json", "value": schema}),
    ] {
        assert_eq!(generated_texts(&app, &format, json!({"temperature": 0.0})), expected, "{format}");
    }
    let pattern = generated_texts(&app, &json!({"type": "regex", "pattern": "[ab]{4}"}), json!({"temperature": 0.0}));
    assert_eq!(
        generated_texts(&app, &json!({"type": "regex", "value": "[ab]{4}"}), json!({"temperature": 0.0})),
        pattern
    );
}

#[test]
fn regex_constrains_the_whole_text() {
    let app = start_with_decoder("qwen2");
    let date = json!({"type": "regex", "pattern": "(19|20)[0-9]{2}-(0[1-9]|1[0-2])"});
    for (text, reason) in generated_texts(&app, &date, json!({"seed": 4, "temperature": 1.5})) {
        let (year, month) = text.split_once('-').unwrap();
        assert_eq!((reason.as_str(), year.len(), month.len()), ("stop", 4, 2), "{text}");
        assert!((1900..2100).contains(&year.parse().unwrap()) && (1..=12).contains(&month.parse().unwrap()), "{text}");
    }
    // An unbounded pattern ends at `max_tokens` with the finish reason `length`.
    let endless = json!({"type": "regex", "pattern": "[ab]{40,}"});
    for (text, reason) in generated_texts(&app, &endless, json!({"max_tokens": 20})) {
        assert_eq!(reason, "length", "{text}");
        assert!(text.bytes().all(|byte| b"ab".contains(&byte)), "{text}");
    }
    let free = generated_texts(&app, &json!({"type": "text"}), json!({"temperature": 0.0, "max_tokens": 9}));
    assert_eq!(free, generated_texts(&app, &Value::Null, json!({"temperature": 0.0, "max_tokens": 9})));
}

#[test]
fn openai_endpoints_support_response_format() {
    let app = start_with_decoder("llama");
    let name = app.get("/base").json()["name"].as_str().unwrap().to_string();
    let format = schema(json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": false}));
    let chat = json!({"model": name, "messages": [{"role": "user", "content": "hi"}], "n": 3, "max_tokens": 60,
        "response_format": format});
    let answer = app.post("/v1/chat/completions", &chat);
    assert_eq!(answer.status, 200, "{}", answer.text());
    for choice in answer.json()["choices"].as_array().unwrap() {
        let found: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
        assert!(found["ok"].is_boolean() && choice["finish_reason"] == "stop", "{choice}");
    }
    let completion = json!({"model": name, "prompt": "a", "max_tokens": 60, "response_format": format});
    let answer = app.post("/v1/completions", &completion);
    let text = answer.json()["choices"][0]["text"].as_str().unwrap().to_string();
    assert!(serde_json::from_str::<Value>(&text).unwrap()["ok"].is_boolean(), "{text}");
}

#[test]
fn unsupported_response_formats_are_rejected() {
    let app = start_with_decoder("llama");
    let nested =
        |depth: usize| (0..depth).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner}));
    let cases = [
        (schema(json!({"type": "person"})), "invalid_format"),
        (schema(json!({"type": "integer", "minimum": 5, "maximum": 4})), "invalid_format"),
        (schema(json!({"$ref": "#/$defs/none"})), "invalid_format"),
        (schema(json!({"$ref": "https://example.org/schema.json"})), "invalid_format"),
        (schema(json!({"type": "object", "dependentSchemas": {}})), "invalid_format"),
        (schema(json!([])), "invalid_format"),
        (schema(json!({"type": "string", "pattern": "("})), "invalid_format"),
        (json!({"type": "regex", "pattern": "(["}), "invalid_format"),
        (json!({"type": "regex", "pattern": "(".repeat(20_000)}), "invalid_format"),
        // Schemas that the grammar compiler rejects.
        (schema(json!({"type": "string", "minLength": format!("a{}", "é".repeat(200))})), "invalid_format"),
        (json!({"type": "xml"}), "invalid_body"),
        (json!({"type": "json_schema"}), "invalid_body"),
    ];
    for (format, code) in cases {
        let refused = app.post("/generate", &json!({"inputs": ["a"], "response_format": format}));
        let shown: String = format.to_string().chars().take(80).collect();
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!(code)), "{shown}: {}", refused.text());
        let pointer = refused.json()["errors"][0]["pointer"].as_str().unwrap_or_default().to_string();
        assert!(pointer.starts_with("/response_format"), "{shown}: {}", refused.text());
        let detail = refused.json()["detail"].as_str().unwrap().to_string();
        assert!(!detail.contains("panic") && !detail.contains("verbose"), "{shown}: {detail}");
    }
    // A chain of references longer than a thread's stack allows.
    let chained = |length: usize| {
        let link = |index: usize| (index.to_string(), json!({"$ref": format!("#/$defs/{}", index + 1)}));
        let last = (length.to_string(), nested(90));
        let defs: serde_json::Map<String, Value> = (0..length).map(link).chain([last]).collect();
        schema(json!({"$ref": "#/$defs/0", "$defs": defs}))
    };
    let long = app.post("/generate", &json!({"inputs": ["a"], "response_format": chained(20_000)}));
    assert_eq!((long.status, &long.json()["code"]), (422, &json!("invalid_format")), "{}", long.text());
    let long = app.post("/generate", &json!({"inputs": ["a"], "max_tokens": 9, "response_format": chained(450)}));
    assert_eq!(long.status, 200, "{}", long.text());
    let deep =
        app.post("/generate", &json!({"inputs": ["a"], "max_tokens": 9, "response_format": schema(nested(100))}));
    assert_eq!(deep.status, 200, "{}", deep.text());
    assert_eq!(app.get("/health/ready").status, 200);
}
