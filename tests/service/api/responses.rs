//! Tests of `/v1/responses`.

use crate::api::generation::start_with_decoder;
use crate::api::server_process::ServerProcess;
use crate::api::tools::{short_template, start_with_template};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

fn request(app: &ServerProcess, fields: Value) -> Value {
    let mut request =
        json!({"model": app.get("/base").json()["name"], "input": "hello", "temperature": 0, "max_output_tokens": 8});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

fn respond(app: &ServerProcess, fields: Value) -> Value {
    let request = request(app, fields);
    let answer = app.post("/v1/responses", &request);
    assert_eq!(answer.status, 200, "{request}: {}", answer.text());
    answer.json()
}

/// Names and data of the events.
fn stream(app: &ServerProcess, fields: Value) -> Vec<(String, Value)> {
    let mut request = request(app, fields);
    request["stream"] = json!(true);
    let agent = app.agent();
    let answer = agent.post(app.url("/v1/responses")).header("content-type", "application/json");
    let answer = answer.send(request.to_string()).unwrap();
    assert_eq!(answer.status(), 200);
    let mut events = Vec::new();
    let mut name = String::new();
    for line in BufReader::new(answer.into_body().into_reader()).lines().map(Result::unwrap) {
        if let Some(value) = line.strip_prefix("event: ") {
            name = value.to_string();
        } else if let Some(data) = line.strip_prefix("data: ") {
            events.push((std::mem::take(&mut name), serde_json::from_str(data).unwrap()));
        }
    }
    events
}

#[test]
fn a_response_is_the_chat_completion_of_its_input() {
    let app = start_with_decoder("qwen2", &[]);
    let response = respond(&app, json!({"instructions": "be short", "metadata": {"a": "b"}, "store": true}));
    let messages = json!([{"role": "system", "content": "be short"}, {"role": "user", "content": "hello"}]);
    let chat = json!({"model": response["model"], "messages": messages, "temperature": 0, "max_tokens": 8});
    let chat = app.post("/v1/chat/completions", &chat).json();
    assert_eq!(response["output"][0]["content"][0]["text"], chat["choices"][0]["message"]["content"]);
    assert_eq!(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    assert_eq!(response["usage"]["total_tokens"], chat["usage"]["total_tokens"]);
    let is_cut = chat["choices"][0]["finish_reason"] == "length";
    assert_eq!(response["status"], if is_cut { "incomplete" } else { "completed" });
    assert_eq!(response["incomplete_details"].is_object(), is_cut);
    assert_eq!((&response["metadata"], &response["store"]), (&json!({"a": "b"}), &json!(false)));
    // The same conversation as items.
    let items = json!([{"role": "developer", "content": "be short"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}, {"type": "input_text", "text": ""}]}]);
    let again = respond(&app, json!({"input": items}));
    assert_eq!(again["output"][0]["content"], response["output"][0]["content"]);
}

#[test]
fn the_events_of_a_stream_add_up_to_the_response() {
    let app = start_with_decoder("qwen2", &[]);
    let fields = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let whole = respond(&app, fields.clone());
    let events = stream(&app, fields);
    for (index, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(index)));
    }
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names[..4],
        ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    );
    let end = if whole["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
    let last = ["response.output_text.done", "response.content_part.done", "response.output_item.done", end];
    assert_eq!(names[names.len() - 4..], last);
    let deltas = || events.iter().filter(|(name, _)| name == "response.output_text.delta").map(|(_, data)| data);
    assert_eq!(deltas().count(), names.len() - 8);
    let said: String = deltas().map(|data| data["delta"].as_str().unwrap()).collect();
    let text = &whole["output"][0]["content"][0];
    assert_eq!(json!(said), text["text"]);
    let logprobs: usize = deltas().map(|data| data["logprobs"].as_array().unwrap().len()).sum();
    assert_eq!(json!(logprobs), whole["usage"]["output_tokens"]);
    assert_eq!(text["logprobs"].as_array().unwrap().len(), logprobs);
    assert_eq!(text["logprobs"][0]["top_logprobs"].as_array().unwrap().len(), 2);
    let response = &events.last().unwrap().1["response"];
    for field in ["status", "usage", "model", "text", "incomplete_details"] {
        assert_eq!(response[field], whole[field], "{field}");
    }
    assert_eq!(response["output"][0]["content"][0]["text"], text["text"]);
    assert_eq!(response["output"][0]["id"], events[2].1["item"]["id"]);
}

#[test]
fn required_calls_of_functions_are_items_with_valid_arguments() {
    let (_folder, app) = start_with_template(&short_template("<tool_call>"));
    let parameters = json!({"type": "object", "properties": {"lost": {"type": "boolean"}}, "required": ["lost"], "additionalProperties": false});
    let fields = json!({"tools": [{"type": "function", "name": "report", "parameters": parameters, "strict": true}],
        "tool_choice": "required", "max_output_tokens": 100});
    let whole = respond(&app, fields.clone());
    let call = &whole["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &whole["status"]),
        (&json!("function_call"), &json!("report"), &json!("completed"))
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["lost"].is_boolean(), "{call}");
    assert_eq!((&whole["tool_choice"], &whole["tools"][0]["name"]), (&json!("required"), &json!("report")));
    let events = stream(&app, fields);
    let named = |name: &str| events.iter().filter(|(other, _)| other == name).map(|(_, data)| data).collect::<Vec<_>>();
    let added = named("response.output_item.added");
    assert_eq!((added.len(), &added[0]["item"]["arguments"]), (1, &json!("")));
    let deltas = named("response.function_call_arguments.delta");
    let said: String = deltas.iter().map(|data| data["delta"].as_str().unwrap()).collect();
    assert_eq!(json!(said), call["arguments"]);
    assert_eq!(named("response.function_call_arguments.done")[0]["arguments"], call["arguments"]);
    assert_eq!(deltas[0]["item_id"], added[0]["item"]["id"]);
    assert!(named("response.output_text.delta").is_empty());
    // The call and its output are the input of the next request.
    let items = json!([{"role": "user", "content": "hello"}, call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "noted"}]);
    assert_eq!(respond(&app, json!({"input": items}))["output"][0]["type"], "message");
}

#[test]
fn the_format_is_enforced() {
    let app = start_with_decoder("qwen2", &[]);
    let schema = json!({"type": "object", "properties": {"lost": {"type": "boolean"}}, "required": ["lost"], "additionalProperties": false});
    let format = json!({"format": {"type": "json_schema", "name": "card", "schema": schema, "strict": true}});
    let response = respond(&app, json!({"text": format, "max_output_tokens": 100}));
    let text = response["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap()["lost"].is_boolean(), "{text}");
    assert_eq!((&response["status"], &response["text"]["format"]["name"]), (&json!("completed"), &json!("card")));
    respond(&app, json!({"text": {"format": {"type": "text"}, "verbosity": "medium"}}));
}

#[test]
fn neutral_values_are_accepted_and_others_refused_by_name() {
    let app = start_with_decoder("qwen2", &[]);
    respond(
        &app,
        json!({"background": false, "tools": [], "tool_choice": "auto", "truncation": "disabled", "conversation": null,
        "previous_response_id": null, "reasoning": {"effort": null, "summary": "auto"}, "include": ["reasoning.encrypted_content"],
        "prompt": null, "parallel_tool_calls": true, "max_tool_calls": 3, "user": "u", "stream_options": {"include_obfuscation": false}}),
    );
    let hints = app.post("/v1/responses", &request(&app, json!({"store": true, "sampler_magic": 3})));
    assert_eq!(hints.header("x-ignored-fields"), Some("sampler_magic, store"));
    for (fields, param) in [
        (json!({"background": true}), "background"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function", "name": "f g"}]}), "tools[0].name"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"reasoning": {"effort": "high"}}), "reasoning"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"text": {"verbosity": "low"}}), "text.verbosity"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
            "input[0].content[0]",
        ),
        (json!({"input": [{"type": "item_reference", "id": "a"}]}), "input[0]"),
        (json!({"input": 3}), "input"),
        (json!({"include": ["everything"]}), "include[0]"),
    ] {
        let refused = app.post("/v1/responses", &request(&app, fields.clone()));
        assert_eq!(
            (refused.status, &refused.json()["error"]["param"]),
            (400, &json!(param)),
            "{fields}: {}",
            refused.text()
        );
    }
    assert_eq!(app.post("/v1/responses", &request(&app, json!({"model": "nobody"}))).status, 404);
}
