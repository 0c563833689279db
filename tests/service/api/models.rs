//! Tests of `/v1/models`, and of `/tokenize`, `/detokenize` and `/tokenizer_info`.

use crate::api::generation::{lora, start_with_decoder};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use serde_json::{Value, json};

fn model(app: &ServerProcess, name: &str) -> Value {
    let answer = app.get(&format!("/v1/models/{name}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn ok(app: &ServerProcess, path: &str, body: &Value) -> Value {
    let answer = app.post(path, body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

#[test]
fn models_of_an_encoder_name_what_they_can_do() {
    let app = ServerConfig::new().start();
    let base = app.get("/base").json();
    app.train_to_success(&small_job(24, json!({"name": "topics", "hyperparameters": {"max_steps": 1}})));
    let pair = |index: usize| {
        let label = ["relevant", "other"][index % 2];
        json!({"text": format!("card {index}"), "text_pair": "card", "label": label})
    };
    let pairs: Vec<Value> = (0..12).map(pair).collect();
    app.train_to_success(
        &json!({"name": "pairs", "examples": pairs, "hyperparameters": {"max_steps": 1, "max_length": 16}}),
    );
    let list = app.get("/v1/models").json();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [base["name"].as_str().unwrap(), "pairs", "topics"]);
    let own = &list["data"][0];
    assert_eq!(own["capabilities"], json!(["embeddings", "rerank"]));
    assert_eq!((&own["parent"], &own["max_model_len"]), (&Value::Null, &base["max_tokens"]));
    assert_eq!(model(&app, "topics")["capabilities"], json!(["predict"]));
    let pairs = model(&app, "pairs");
    assert_eq!(pairs["capabilities"], json!(["rerank", "predict"]));
    assert_eq!((&pairs["parent"], &pairs["max_model_len"]), (&base["name"], &json!(16)));
    assert_eq!(pairs["root"], app.get("/adapters/pairs").json()["id"]);
    assert_eq!(app.get("/v1/models/nobody").status, 404);
}

#[test]
fn models_of_a_decoder_name_what_they_can_do() {
    let app = start_with_decoder("qwen2", &[]);
    let base = app.get("/base").json();
    let rows: Vec<Value> = (0..12).map(|_| json!({"prompt": "fruit red", "completion": " apple"})).collect();
    let job = |name: &str, method: Value| json!({"name": name, "examples": rows, "method": method, "hyperparameters": {"max_steps": 1}});
    app.train_to_success(&job("fruit", lora()));
    app.train_to_success(&job("soft", json!({"type": "prompt_tuning", "num_virtual_tokens": 5})));
    let generates = json!(["chat", "responses", "completions"]);
    assert_eq!(
        app.get("/v1/models").json()["data"][0]["capabilities"],
        json!(["chat", "responses", "completions", "embeddings", "rerank"])
    );
    assert_eq!(model(&app, "fruit")["capabilities"], generates);
    let room = base["max_tokens"].as_u64().unwrap();
    assert_eq!(model(&app, "fruit")["max_model_len"], room);
    assert_eq!(model(&app, "soft")["max_model_len"], room - 5);
    let tokenized = ok(&app, "/tokenize", &json!({"model": "soft", "prompt": "a"}));
    assert_eq!(tokenized["max_model_len"], room - 5);
}

#[test]
fn texts_and_conversations_are_tokenized() {
    let app = start_with_decoder("llama", &["--max-text", "4KiB"]);
    let name = app.get("/base").json()["name"].clone();
    let text = "Where is my card? 12 €";
    let tokenized = ok(&app, "/tokenize", &json!({"model": name, "prompt": text, "return_token_strs": true}));
    let ids = tokenized["tokens"].as_array().unwrap();
    assert_eq!(
        (tokenized["count"].as_u64().unwrap() as usize, tokenized["token_strs"].as_array().unwrap().len()),
        (ids.len(), ids.len())
    );
    assert_eq!(ok(&app, "/detokenize", &json!({"tokens": ids}))["prompt"], text);
    // What is tokenized is what is generated from.
    let usage = |path: &str, fields: Value| {
        let mut body = json!({"model": name, "max_tokens": 1});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        ok(&app, path, &body)["usage"]["prompt_tokens"].clone()
    };
    assert_eq!(usage("/v1/completions", json!({"prompt": text})), tokenized["count"]);
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "hello"}]}]);
    let chat = ok(&app, "/tokenize", &json!({"messages": messages, "chat_template_kwargs": null}));
    assert_eq!(chat["token_strs"], Value::Null);
    assert_eq!(usage("/v1/chat/completions", json!({"messages": messages})), chat["count"]);
    let rendered = ok(&app, "/detokenize", &json!({"tokens": chat["tokens"]}));
    assert!(rendered["prompt"].as_str().unwrap().contains("<|im_start|>user"), "{rendered}");
    let info = app.get("/tokenizer_info").json();
    assert_eq!(info["eos_token"], "<|endoftext|>");
    assert!(info["chat_template"].as_str().unwrap().contains("messages"));
    for (path, body, code) in [
        ("/tokenize", json!({"prompt": "a ".repeat(4000)}), "text_too_long"),
        ("/tokenize", json!({"prompt": "a", "messages": messages}), "invalid_body"),
        ("/tokenize", json!({}), "invalid_body"),
        ("/tokenize", json!({"prompt": "a", "chat_template": "x"}), "unsupported_field"),
        ("/detokenize", json!({"tokens": [1, 99_999]}), "invalid_body"),
        ("/detokenize", json!({"tokens": "a"}), "invalid_body"),
    ] {
        let refused = app.post(path, &body);
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!(code)), "{path} {}", refused.text());
    }
    assert_eq!(app.post("/tokenize", &json!({"model": "nobody", "prompt": "a"})).status, 404);
}

#[test]
fn an_encoder_adds_its_special_tokens() {
    let app = ServerConfig::new().start();
    let count = |fields: Value| ok(&app, "/tokenize", &fields)["count"].as_u64().unwrap();
    assert_eq!(count(json!({"prompt": "card"})), count(json!({"prompt": "card", "add_special_tokens": false})) + 2);
    let refused = app.post("/tokenize", &json!({"messages": [{"role": "user", "content": "a"}]}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("no_chat_template")));
}
