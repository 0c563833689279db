//! Tests of tools in chat completions: calls that are required, that the model chooses to write, refusals, and prefilled answers.

use crate::api::generation::{read_stream, start_with_decoder, train_adapter};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess};
use crate::api::user_files::cases::write_decoder_with_template;
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn tools() -> Value {
    let weather = json!({"type": "object", "additionalProperties": false, "required": ["city", "days", "hours", "place"], "properties": {
        "city": {"enum": ["Ulm", "Bonn"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "hours": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        "place": {"type": "object", "properties": {"indoor": {"type": "boolean"}}, "required": ["indoor"], "additionalProperties": false},
    }});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "Forecast.", "parameters": weather, "strict": null}},
        {"type": "function", "function": {"name": "now"}},
    ])
}

fn request(app: &ServerProcess, fields: Value) -> Value {
    let model = app.get("/base").json()["name"].clone();
    let mut body =
        json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "tools": tools()});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn chat(app: &ServerProcess, fields: Value) -> HttpResponse {
    app.post("/v1/chat/completions", &request(app, fields))
}

fn choice(answer: &HttpResponse) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["choices"][0].clone()
}

/// Decoder with a template that has this source.
pub fn start_with_template(template: &str) -> (tempfile::TempDir, ServerProcess) {
    let folder = tempfile::tempdir().unwrap();
    write_decoder_with_template(&fixture("decoders").join("llama"), folder.path(), template);
    let app = ServerConfig::new().with_base_model(folder.path().to_path_buf()).start();
    (folder, app)
}

/// Renders the number of tools, so that prompts are short; `marker` is what the base writes before calls.
pub fn short_template(marker: &str) -> String {
    format!(
        "{{% if tools %}}<|im_start|>tools {{{{ tools | length }}}}<|im_end|>\n{{% endif %}}{{% for message in messages %}}\
         <|im_start|>{{{{ message['role'] }}}}\n{{{{ message['content'] or '' }}}}\
         {{% for call in message['tool_calls'] or [] %}}{{{{ '{marker}' + call['function']['name'] }}}}{{% endfor %}}<|im_end|>\n\
         {{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
    )
}

fn assert_weather(arguments: &Value) {
    let text = arguments.as_str().unwrap();
    let found: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(["Ulm", "Bonn"].contains(&found["city"].as_str().unwrap()), "{text}");
    assert!((1..=9).contains(&found["days"].as_i64().unwrap()), "{text}");
    assert!(found["hours"].as_array().unwrap().iter().all(Value::is_boolean), "{text}");
    assert!(found["place"]["indoor"].is_boolean(), "{text}");
}

#[test]
fn a_required_call_fits_its_schema_on_any_base() {
    let (_folder, app) = start_with_template(&short_template(""));
    let function = json!({"type": "function", "function": {"name": "weather"}});
    let mut names = BTreeSet::new();
    for seed in 0..12 {
        let fields =
            json!({"tool_choice": "required", "parallel_tool_calls": false, "seed": seed, "n": 2, "max_tokens": 700});
        let required = choice(&chat(&app, fields));
        let calls = required["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(
            (calls.len(), &required["message"]["content"], &required["finish_reason"]),
            (1, &Value::Null, &json!("tool_calls"))
        );
        let call = &calls[0]["function"];
        names.insert(call["name"].as_str().unwrap().to_string());
        match call["name"].as_str() {
            Some("weather") => assert_weather(&call["arguments"]),
            _ => assert_eq!(call["arguments"].as_str().unwrap().replace(char::is_whitespace, ""), "{}"),
        }
        let forced = choice(&chat(&app, json!({"tool_choice": function, "seed": seed, "max_tokens": 700})));
        assert_eq!(forced["message"]["tool_calls"].as_array().unwrap().len(), 1);
        assert_weather(&forced["message"]["tool_calls"][0]["function"]["arguments"]);
    }
    assert_eq!(names.len(), 2, "both tools are called by a base with random weights");
    let cut_off = choice(&chat(&app, json!({"tool_choice": function, "max_tokens": 30})));
    assert_eq!(cut_off["finish_reason"], "length");
}

#[test]
fn a_streamed_call_is_the_whole_one_in_deltas() {
    let (_folder, app) = start_with_template(&short_template("<tool_call>"));
    let fields =
        json!({"tool_choice": "required", "seed": 5, "temperature": 0.0, "logprobs": true, "n": 2, "max_tokens": 300});
    let whole = chat(&app, fields.clone()).json();
    let mut streamed = request(&app, fields);
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let frames = read_stream(&app, "/v1/chat/completions", &streamed);
    for index in 0..2 {
        let choices: Vec<&Value> =
            frames.iter().map(|frame| &frame["choices"][0]).filter(|choice| choice["index"] == index).collect();
        let deltas: Vec<&Value> =
            choices.iter().map(|choice| &choice["delta"]["tool_calls"][0]).filter(|delta| delta.is_object()).collect();
        let expected = &whole["choices"][index];
        for (at, call) in expected["message"]["tool_calls"].as_array().unwrap().iter().enumerate() {
            let mut own = deltas.iter().filter(|delta| delta["index"] == at);
            let first = own.next().unwrap();
            assert_eq!((&first["type"], &first["function"]["name"]), (&json!("function"), &call["function"]["name"]));
            assert!(first["id"].as_str().unwrap().starts_with("call_"));
            let pieces: Vec<&str> = own.map(|delta| delta["function"]["arguments"].as_str().unwrap()).collect();
            assert!(call["function"]["arguments"].as_str().unwrap().len() < 9 || pieces.len() > 3, "{pieces:?}");
            assert_eq!(pieces.concat(), call["function"]["arguments"].as_str().unwrap());
        }
        assert_eq!(choices.last().unwrap()["finish_reason"], expected["finish_reason"]);
        let logprobs = |choice: &&&Value| choice["logprobs"]["content"].is_array();
        let tokens = expected["logprobs"]["content"].as_array().unwrap().len();
        assert_eq!(choices.iter().filter(logprobs).count(), tokens);
    }
    assert_eq!(frames.last().unwrap()["usage"], whole["usage"]);
}

#[test]
fn calls_that_the_model_writes_are_found() {
    for (marker, written, expected) in [
        (
            "<tool_call>",
            "One.\n<tool_call>\n{\"name\": \"now\", \"arguments\": {\"at\": 7}}\n</tool_call>",
            json!("One."),
        ),
        ("<|python_tag|>", "{\"name\": \"now\", \"parameters\": {\"at\": 7}}", Value::Null),
        ("[TOOL_CALLS]", "[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {\"at\": 7}}]", Value::Null),
    ] {
        let (_folder, app) = start_with_template(&short_template(marker));
        let messages = json!([{"role": "user", "content": "time"}, {"role": "assistant", "content": written}]);
        let rows: Vec<Value> = (0..24).map(|_| json!({"messages": messages, "tools": tools()})).collect();
        train_adapter(&app, "clock", &rows, json!({}));
        let asked = json!({"model": "clock", "messages": [messages[0]], "temperature": 0.0});
        let found = choice(&chat(&app, asked.clone()));
        let message = &found["message"];
        assert_eq!((&message["content"], &found["finish_reason"]), (&expected, &json!("tool_calls")), "{found:#}");
        let call = &message["tool_calls"][0];
        assert_eq!(call["function"], json!({"name": "now", "arguments": "{\"at\": 7}"}));
        let mut streamed = request(&app, asked.clone());
        streamed["stream"] = json!(true);
        let frames = read_stream(&app, "/v1/chat/completions", &streamed);
        let arguments: String = frames
            .iter()
            .filter_map(|frame| frame["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str())
            .collect();
        assert_eq!(arguments, "{\"at\": 7}");
        assert_eq!(frames.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
        // The call and its result are messages of the next turn.
        let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "noon"});
        let next = json!({"model": "clock", "messages": [messages[0], message, result], "max_tokens": 4});
        assert_eq!(chat(&app, next).status, 200);
        // Without tools, and with others, the text stays as it is.
        for fields in [json!({"tools": null}), json!({"tool_choice": "none"})] {
            let mut plain = asked.clone();
            plain.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            assert!(choice(&chat(&app, plain))["message"].get("tool_calls").is_none());
        }
        let mut others = asked;
        others["tools"] = json!([tools()[0], {"type": "function", "function": {"name": "later"}}]);
        let text = choice(&chat(&app, others));
        assert_eq!((&text["message"]["content"], &text["finish_reason"]), (&json!(written), &json!("stop")));
    }
}

#[test]
fn what_cannot_be_done_with_tools_is_refused_by_name() {
    let app = start_with_decoder("llama", &[]);
    let call =
        |arguments: &str| json!({"id": "1", "type": "function", "function": {"name": "now", "arguments": arguments}});
    for (fields, param) in [
        (json!({}), "tools"),
        (json!({"tool_choice": "auto", "parallel_tool_calls": true}), "tools"),
        (json!({"tools": [{"type": "custom", "custom": {"name": "a"}}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools[0].function.name"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "object", "properties": {"b": {"type": "text"}}}}}]}),
            "tools[0].function.parameters.properties.b.type",
        ),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "fly"}}}), "tool_choice.function.name"),
        (json!({"tools": null, "tool_choice": "required"}), "tool_choice"),
        (
            json!({"tools": null, "messages": [{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}]}),
            "messages[1].role",
        ),
        (json!({"tools": null, "messages": [{"role": "assistant", "content": null}]}), "messages[0].content"),
        (
            json!({"tools": null, "messages": [{"role": "assistant", "content": "", "tool_calls": [call("{")]}]}),
            "messages[0].tool_calls",
        ),
        (
            json!({"tools": null, "messages": [{"role": "user", "content": "", "tool_calls": [call("{}")]}]}),
            "messages[0].tool_calls",
        ),
        (
            json!({"tools": null, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]}),
            "messages[0].content",
        ),
        (json!({"tools": null, "continue_final_message": true}), "continue_final_message"),
        (json!({"tools": null, "messages": [{"role": "user", "content": "a", "prefix": true}]}), "messages[0].prefix"),
    ] {
        let refused = chat(&app, fields.clone());
        let error = refused.json()["error"].clone();
        assert_eq!((refused.status, &error["param"]), (400, &json!(param)), "{fields}: {error}");
    }
    // A schema that cannot be enforced.
    let impossible = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}, "required": ["a"]});
    let tool = json!({"type": "function", "function": {"name": "a", "parameters": impossible}});
    let refused = chat(&app, json!({"tools": [tools()[1], tool], "tool_choice": "required"}));
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (400, &json!("tools[1].function.parameters")),
        "{}",
        refused.text()
    );
    let generate = app.post("/generate", &json!({"inputs": ["a", {"messages": [{"role": "wizard", "content": "b"}]}]}));
    assert_eq!(generate.json()["errors"][0]["pointer"], "/inputs/1/messages/0/role", "{}", generate.text());
}

#[test]
fn earlier_calls_are_rendered_on_a_base_without_a_place_for_them() {
    let (_folder, app) = start_with_template(
        "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{\"at\": 7}"}});
    let called = json!([{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "time"},
        {"role": "assistant", "content": null, "tool_calls": [call], "refusal": null, "audio": null, "annotations": []},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "no"}, {"type": "text", "text": "on"}]}]);
    let written = json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "time"},
        {"role": "assistant", "content": "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"at\":7}}\n</tool_call>"},
        {"role": "user", "content": "<tool_response>\nnoon\n</tool_response>"}]);
    let answer = |messages: &Value| {
        let answer = chat(&app, json!({"messages": messages, "tools": null, "temperature": 0.0, "max_tokens": 12}));
        (
            choice(&answer)["message"].clone(),
            answer.json()["usage"].clone(),
            answer.header("x-ignored-fields").map(str::to_string),
        )
    };
    let (message, usage, ignored) = answer(&called);
    assert_eq!((message, usage), (answer(&written).0, answer(&written).1));
    assert_eq!(ignored, None);
    let named =
        answer(&json!([{"role": "user", "content": "a", "name": "Ada", "cache_control": {"type": "ephemeral"}}]));
    assert_eq!(named.2.as_deref(), Some("messages.name"));
}

#[test]
fn an_answer_is_continued_where_the_last_message_ends() {
    let app = start_with_decoder("llama", &[]);
    let model = app.get("/base").json()["name"].clone();
    let text = |prompt: &str| {
        let request = json!({"model": model, "prompt": prompt, "temperature": 0.0, "max_tokens": 10});
        let answer = app.post("/v1/completions", &request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.json()["choices"][0]["text"].clone(), answer.json()["usage"]["prompt_tokens"].clone())
    };
    let continued = |fields: Value| {
        let mut all = json!({"tools": null, "temperature": 0.0, "max_tokens": 10});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = chat(&app, all);
        (choice(&answer)["message"]["content"].clone(), answer.json()["usage"]["prompt_tokens"].clone())
    };
    let messages = |fields: Value| {
        let mut last = json!({"role": "assistant", "content": "The sum is "});
        last.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!([{"role": "user", "content": "12 and 30?"}, last])
    };
    let open = text("<|im_start|>user\n12 and 30?<|im_end|>\n<|im_start|>assistant\nThe sum is ");
    let vllm = json!({"messages": messages(json!({})), "continue_final_message": true, "add_generation_prompt": false});
    assert_eq!(continued(vllm), open);
    assert_eq!(continued(json!({"messages": messages(json!({"prefix": true}))})), open);
    let closed = text("<|im_start|>user\n12 and 30?<|im_end|>\n<|im_start|>assistant\nThe sum is <|im_end|>\n");
    assert_eq!(
        continued(json!({"messages": messages(json!({"prefix": false})), "add_generation_prompt": false})),
        closed
    );
}
