//! Tests of the fields that clients of OpenAI's API send: neutral ones, unsupported ones and unknown ones.

use crate::api::generation::start_with_decoder;
use crate::api::server_process::ServerProcess;
use serde_json::{Value, json};

fn chat(app: &ServerProcess, fields: &Value) -> crate::api::server_process::HttpResponse {
    let model = app.get("/base").json()["name"].clone();
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "fruit red"}], "max_tokens": 4});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    app.post("/v1/chat/completions", &body)
}

#[test]
fn fields_that_ask_for_nothing_are_accepted() {
    let app = start_with_decoder("qwen3", &["--strict-requests"]);
    let neutral = json!({
        "audio": null, "function_call": null, "functions": [], "logit_bias": null, "logprobs": false, "max_completion_tokens": null,
        "metadata": {"a": "b"}, "modalities": ["text"], "n": 1.0, "parallel_tool_calls": true, "prediction": null, "presence_penalty": 0,
        "prompt_cache_key": "k", "reasoning_effort": null, "response_format": {"type": "text"}, "safety_identifier": "s", "seed": -1,
        "service_tier": "auto", "stop": null, "store": false, "stream": false, "stream_options": null, "tool_choice": "none", "tools": null,
        "top_k": -1, "top_logprobs": null, "top_p": 1, "user": "u", "verbosity": "medium", "web_search_options": null, "never_heard_of": null,
        "use_beam_search": false, "skip_special_tokens": true, "min_tokens": 0, "ignore_eos": false, "max_tokens": 4.0,
        "continue_final_message": false, "add_generation_prompt": true, "stop_token_ids": [], "length_penalty": 1.0
    });
    let answer = chat(&app, &neutral);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-ignored-fields"), None);
    assert_eq!(chat(&app, &json!({"max_tokens": -1, "max_completion_tokens": 3})).status, 200);
    let refused = chat(&app, &json!({"never_heard_of": 3}));
    let error = refused.json()["error"].clone();
    assert_eq!(
        (refused.status, &error["code"], &error["param"]),
        (400, &json!("unsupported_field"), &json!("never_heard_of"))
    );
}

#[test]
fn fields_that_would_change_the_answer_are_refused_by_name() {
    let app = start_with_decoder("qwen3", &[]);
    for (field, value) in [
        ("audio", json!({"voice": "alloy", "format": "wav"})),
        ("functions", json!([{"name": "f"}])),
        ("modalities", json!(["text", "audio"])),
        ("web_search_options", json!({})),
        ("reasoning_effort", json!("high")),
        ("verbosity", json!("low")),
        ("use_beam_search", json!(true)),
        ("min_tokens", json!(5)),
        ("guided_json", json!({"type": "object"})),
        ("chat_template", json!("{{ messages }}")),
    ] {
        let answer = chat(&app, &json!({field: value}));
        let error = answer.json()["error"].clone();
        assert_eq!(
            (answer.status, &error["code"], &error["param"]),
            (400, &json!("unsupported_field"), &json!(field)),
            "{error}"
        );
    }
    let ignored = chat(&app, &json!({"sampler_magic": {"a": 1}, "store": true, "service_tier": "flex"}));
    assert_eq!((ignored.status, ignored.header("x-ignored-fields")), (200, Some("sampler_magic, service_tier, store")));
    let completion =
        json!({"model": app.get("/base").json()["name"], "prompt": "fruit", "max_tokens": 2.0, "seed": -1, "magic": 1});
    let completion = app.post("/v1/completions", &completion);
    assert_eq!(
        (completion.status, completion.header("x-ignored-fields")),
        (200, Some("magic")),
        "{}",
        completion.text()
    );
}
