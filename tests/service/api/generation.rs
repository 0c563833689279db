//! Tests of text generation: training on prompts, conversations and plain texts, streaming, batching and the OpenAI-compatible
//! endpoints.

use crate::api::server_process::{ServerConfig, ServerProcess};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

pub fn start_with_decoder(model_type: &str, arguments: &[&str]) -> ServerProcess {
    ServerConfig::new().with_base_model(fixture("decoders").join(model_type)).with_arguments(arguments).start()
}

const LORA: &str = r#"{"type": "lora", "rank": 16, "target_modules": "all-linear"}"#;

pub fn lora() -> Value {
    serde_json::from_str(LORA).unwrap()
}

/// Prompts with one completion each.
fn pairs(count: usize) -> Vec<Value> {
    let one = |index: usize| {
        let (asked, answer) = [("red", " apple"), ("green", " pear"), ("blue", " plum")][index % 3];
        json!({"prompt": format!("fruit {asked}"), "completion": answer})
    };
    (0..count).map(one).collect()
}

/// Trains on few different rows that repeat, and validates on the same rows: a part of them would be missing in training.
pub fn train_adapter(app: &ServerProcess, name: &str, examples: &[Value], fields: Value) -> Value {
    let lines: String = examples.iter().map(|example| format!("{example}\n")).collect();
    let mut options = json!({"on_bad_rows": "skip"});
    if let Some(task) = fields.get("task") {
        options["task"] = task.clone();
    }
    let rows = app.post_file("/datasets", ("options", &options), ("dataset", "rows.jsonl", lines.as_bytes()));
    let mut job = json!({"name": name, "examples": examples, "method": lora(),
        "validation": {"dataset_id": rows.json()["id"]},
        "hyperparameters": {"epochs": 12, "learning_rate": 0.01, "batch_size": 6}});
    job.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    app.train_to_success(&job)
}

pub fn generate(app: &ServerProcess, adapter: &str, inputs: Value, fields: Value) -> Vec<Value> {
    let mut request = json!({"inputs": inputs, "temperature": 0.0, "max_tokens": 12});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let path = if adapter.is_empty() { "/generate".to_string() } else { format!("/generate?adapter={adapter}") };
    let answer = app.post(&path, &request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["generations"].as_array().unwrap().clone()
}

pub fn texts(generations: &[Value]) -> Vec<&str> {
    generations.iter().map(|generation| generation["text"].as_str().unwrap()).collect()
}

#[test]
fn completions_are_learned_and_generated() {
    for model_type in ["llama", "qwen3", "gpt2"] {
        let app = start_with_decoder(model_type, &[]);
        let base = app.get("/base").json();
        assert_eq!((&base["is_causal_lm"], &base["chat"]), (&json!(true), &json!(true)));
        let job = train_adapter(&app, "fruit", &pairs(60), json!({}));
        assert_eq!(job["task"], json!({"type": "causal_language_model"}));
        let validation = &job["metrics"]["validation"];
        assert!(validation["accuracy"].as_f64().unwrap() > 0.9, "{validation:#}");
        let (loss, perplexity) = (validation["loss"].as_f64().unwrap(), validation["perplexity"].as_f64().unwrap());
        assert!((loss.exp() - perplexity).abs() < 1e-9);
        let inputs = json!(["fruit red", "fruit green", "fruit blue"]);
        let found = generate(&app, "fruit", inputs.clone(), json!({}));
        assert_eq!(texts(&found), [" apple", " pear", " plum"]);
        assert!(found.iter().all(|one| one["finish_reason"] == "stop"), "{found:#?}");
        assert!(found[0]["usage"]["prompt_tokens"].as_u64().unwrap() > 3);
        // The adapter loaded from disk generates the same texts, and `max_tokens` gives the finish reason `length`.
        let zip = app.get("/adapters/fruit/download").body;
        let kept = app.post_file("/adapters", ("options", &json!({"name": "again"})), ("adapter", "adapter.zip", &zip));
        assert_eq!(kept.status, 201, "{}", kept.text());
        assert_eq!(generate(&app, "again", inputs.clone(), json!({})), found);
        let cut = generate(&app, "fruit", inputs.clone(), json!({"stop": ["ea", "lu"]}));
        assert_eq!(texts(&cut), [" apple", " p", " p"]);
        let short = generate(&app, "fruit", inputs, json!({"max_tokens": 1}));
        assert!(short.iter().all(|one| one["finish_reason"] == "length"), "{short:#?}");
        let refused = app.post("/predict?adapter=fruit", &json!({"inputs": ["fruit red"]}));
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("no_predictions")));
    }
}

#[test]
fn conversations_are_learned_turn_by_turn() {
    let app = start_with_decoder("qwen2", &[]);
    let one = |index: usize| {
        let (asked, answer) = [("ping", "pong"), ("tick", "tock")][index % 2];
        json!({"messages": [
            {"role": "user", "content": asked}, {"role": "assistant", "content": answer},
            {"role": "user", "content": "again"}, {"role": "assistant", "content": format!("{answer}!")},
        ]})
    };
    let rows: Vec<Value> = (0..48).map(one).collect();
    let job = train_adapter(&app, "game", &rows, json!({}));
    assert!(job["metrics"]["validation"]["accuracy"].as_f64().unwrap() > 0.9, "{:#}", job["metrics"]);
    let asked = |content: &str| json!({"messages": [{"role": "user", "content": content}]});
    let found = generate(&app, "game", json!([asked("ping"), asked("tick")]), json!({}));
    assert_eq!(texts(&found), ["pong", "tock"]);
    // Rows in which every message has weight 0 leave no training example.
    let weightless: Vec<Value> = (0..12)
        .map(|_| json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}))
        .collect();
    let refused = app.post("/jobs", &json!({"examples": weightless}));
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("no tokens to learn"), "{}", refused.text());
    let wrong = json!([{"messages": [{"content": "a"}]}, {"messages": "a"}, {"messages": []}]);
    let refused = app.post("/jobs", &json!({"examples": wrong}));
    assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 3, "{}", refused.text());
}

#[test]
fn plain_texts_are_packed_and_long_ones_split() {
    let app = start_with_decoder("mistral", &[]);
    let rows: Vec<Value> =
        (0..20).map(|index| json!({"text": "one two three four five six ".repeat(1 + index % 9)})).collect();
    let task = json!({"task": {"type": "causal_language_model"}, "hyperparameters":
        {"epochs": 20, "learning_rate": 0.01, "batch_size": 4, "max_length": 24}});
    let job = train_adapter(&app, "count", &rows, task);
    assert!(job["metrics"]["training_examples"].as_u64().unwrap() > 20, "{:#}", job["metrics"]);
    let found = generate(&app, "count", json!(["one two three"]), json!({"max_tokens": 8}));
    assert!(found[0]["text"].as_str().unwrap().starts_with(" four five"), "{found:#?}");
}

#[test]
fn prompts_over_max_length_are_reported_per_row() {
    let app = start_with_decoder("llama", &[]);
    let rows = json!([{"prompt": "a ".repeat(60), "completion": "b"}, {"prompt": "a", "completion": "b"},
        {"prompt": "", "completion": "b"}, {"prompt": "a", "completion": ""}]);
    let job = json!({"examples": rows, "hyperparameters": {"max_length": 16}});
    let refused = app.post("/jobs", &job);
    let errors = refused.json()["errors"].as_array().unwrap().clone();
    assert_eq!((refused.status, errors.len()), (422, 3), "{}", refused.text());
    assert!(errors[0]["message"].as_str().unwrap().contains("max_length"), "{errors:#?}");
    let mut skipping = job;
    skipping["on_bad_rows"] = json!("skip");
    let answer = app.post("/jobs?validate_only=true", &skipping);
    assert_eq!((answer.status, &answer.json()["report"]["examples"]), (200, &json!(1)), "{}", answer.text());
}

/// Events of a stream as JSON, without the last.
pub fn read_stream(app: &ServerProcess, path: &str, request: &Value) -> Vec<Value> {
    let answer = app.agent().post(app.url(path)).header("content-type", "application/json").send(request.to_string());
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let lines = BufReader::new(answer.into_body().into_reader()).lines().map(Result::unwrap);
    let data: Vec<String> = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_string)).collect();
    assert_eq!(data.last().map(String::as_str), Some("[DONE]"));
    data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn batched_generation_equals_single_generation() {
    assert_batched_equals_single(&["--prefill-chunk-tokens", "5"]);
}

#[test]
fn batched_generation_equals_single_with_int8_activations() {
    let rounding = ["--weight-format", "q4_0", "--activation-quantization", "int8"];
    assert_batched_equals_single(&[&["--prefill-chunk-tokens", "5"], &rounding[..]].concat());
}

fn assert_batched_equals_single(flags: &[&str]) {
    let app = start_with_decoder("llama", flags);
    let methods = [
        lora(),
        json!({"type": "prefix_tuning", "num_virtual_tokens": 7}),
        json!({"type": "prompt_tuning"}),
        json!({"type": "ia3"}),
    ];
    for (index, method) in methods.iter().enumerate() {
        let fields =
            json!({"method": method, "hyperparameters": {"max_steps": 3, "learning_rate": 0.03, "batch_size": 6}});
        train_adapter(&app, &format!("a{index}"), &pairs(12), fields);
    }
    let adapters = ["", "a0", "a1", "a2", "a3"];
    let beginning = "What is the sum of 12 and 30, and where is my card? ".repeat(2);
    let prompts: Vec<String> =
        ["hello", "a card", "x"].iter().map(|end| format!("{beginning}{end}")).chain(["y".to_string()]).collect();
    let fields = json!({"max_tokens": 40});
    let alone: Vec<Vec<Value>> = adapters
        .iter()
        .map(|adapter| {
            prompts.iter().map(|prompt| generate(&app, adapter, json!([prompt]), fields.clone()).remove(0)).collect()
        })
        .collect();
    assert_ne!(alone[0], alone[1]);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for (adapter, alone) in adapters.iter().zip(&alone) {
                let (app, prompts, fields) = (&app, &prompts, &fields);
                scope.spawn(move || assert_eq!(generate(app, adapter, json!(prompts), fields.clone()), *alone));
            }
        });
    }
    // Streaming gives the same text, and equal seeds give equal texts.
    let frames = read_stream(
        &app,
        "/generate?adapter=a1",
        &json!({"inputs": prompts, "temperature": 0.0, "max_tokens": 40, "stream": true}),
    );
    for (index, expected) in alone[2].iter().enumerate() {
        let mut own = frames.iter().filter(|frame| frame["index"] == index);
        let text: String = own.clone().filter_map(|frame| frame["text"].as_str()).collect();
        assert_eq!(text, expected["text"].as_str().unwrap());
        let last = own.next_back().unwrap();
        assert_eq!((&last["finish_reason"], &last["usage"]), (&expected["finish_reason"], &expected["usage"]));
    }
    let warm = json!({"temperature": 0.9, "top_p": 0.95, "seed": 7, "max_tokens": 20});
    let drawn = || generate(&app, "a3", json!([prompts[0]]), warm.clone());
    assert_eq!(drawn(), drawn());
    assert_ne!(drawn()[0]["text"], alone[4][0]["text"]);
}

#[test]
fn invalid_generation_request_is_rejected() {
    let app = start_with_decoder("llama", &["--kv-cache-memory", "3MiB"]);
    let refusals = [
        (json!({"inputs": [], "max_tokens": 4}), "invalid_generation"),
        (json!({"inputs": ["a"], "max_tokens": 0}), "invalid_generation"),
        (json!({"inputs": ["a"], "temperature": 3.0}), "invalid_generation"),
        (json!({"inputs": ["a"], "top_p": 0.0}), "invalid_generation"),
        (json!({"inputs": ["a"], "stop": [""]}), "invalid_generation"),
        (json!({"inputs": ["a"], "logit_bias": {"x": 1.0}}), "invalid_body"),
        (json!({"inputs": ["a"], "logit_bias": {"99999": 1.0}}), "invalid_generation"),
        (json!({"inputs": ["a"], "words": 3}), "invalid_body"),
        (json!({"inputs": [""]}), "empty_input"),
        (json!({"inputs": ["a ".repeat(200)]}), "too_long"),
        (json!({"inputs": ["a"], "max_tokens": 4000}), "too_long"),
        (json!({"inputs": [{"messages": []}]}), "chat_template_refused"),
    ];
    for (request, code) in refusals {
        let refused = app.post("/generate", &request);
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!(code)), "{request}: {}", refused.text());
    }
    assert_eq!(app.post("/generate?adapter=nobody", &json!({"inputs": ["a"]})).status, 404);
    let encoder = ServerConfig::new().start();
    let refused = encoder.post("/generate", &json!({"inputs": ["a"]}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("no_generation")));
    let refused = encoder.post("/jobs", &json!({"examples": pairs(12)}));
    assert_eq!(
        (refused.status, &refused.json()["errors"][0]["pointer"]),
        (422, &json!("/task/type")),
        "{}",
        refused.text()
    );
}

#[test]
fn openai_endpoints_use_openai_response_format() {
    let app = start_with_decoder("qwen2", &[]);
    train_adapter(&app, "fruit", &pairs(60), json!({}));
    let name = app.get("/base").json()["name"].as_str().unwrap().to_string();
    let models = app.get("/v1/models").json();
    let ids: Vec<&str> = models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [name.as_str(), "fruit"]);
    assert_eq!(app.get("/v1/models/fruit").json()["object"], "model");
    let request = json!({"model": "fruit", "prompt": ["fruit red", "fruit blue"], "temperature": 0, "n": 2, "logprobs": 2,
        "max_tokens": 12});
    let answer = app.post("/v1/completions", &request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let texts: Vec<&str> =
        answer["choices"].as_array().unwrap().iter().map(|one| one["text"].as_str().unwrap()).collect();
    assert_eq!(texts, [" apple", " apple", " plum", " plum"]);
    let lists = &answer["choices"][0]["logprobs"];
    assert_eq!(lists["tokens"].as_array().unwrap().len(), lists["token_logprobs"].as_array().unwrap().len());
    assert!(lists["token_logprobs"][0].as_f64().unwrap() > -2.5, "{lists:#}");
    let messages = json!([{"role": "user", "content": "hi"}]);
    let mut chat = json!({"model": name, "messages": messages, "max_completion_tokens": 6, "seed": 3, "logprobs": true, "top_logprobs": 1});
    let whole = app.post("/v1/chat/completions", &chat);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = whole.json();
    assert_eq!(
        whole["choices"][0]["logprobs"]["content"].as_array().unwrap().len() as u64,
        whole["usage"]["completion_tokens"].as_u64().unwrap()
    );
    chat["stream"] = json!(true);
    chat["stream_options"] = json!({"include_usage": true});
    let frames = read_stream(&app, "/v1/chat/completions", &chat);
    let said: String = frames.iter().filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, whole["choices"][0]["message"]["content"].as_str().unwrap());
    assert_eq!(frames.last().unwrap()["usage"], whole["usage"]);
    for (path, request, status, code) in [
        ("/v1/chat/completions", json!({"model": "nobody", "messages": messages}), 404, "model_not_found"),
        (
            "/v1/chat/completions",
            json!({"model": name, "messages": messages, "temperature": 9}),
            400,
            "invalid_generation",
        ),
        (
            "/v1/chat/completions",
            json!({"model": name, "messages": messages, "tool_choice": "required"}),
            400,
            "invalid_body",
        ),
        ("/v1/completions", json!({"model": name, "prompt": "a", "suffix": "b"}), 400, "unsupported_field"),
        ("/v1/completions", json!({"model": name}), 400, "invalid_body"),
    ] {
        let refused = app.post(path, &request);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (status, &json!(code)), "{}", refused.text());
        assert!(refused.json()["error"]["message"].is_string());
    }
}

#[test]
fn client_disconnect_frees_its_kv_cache() {
    let app = start_with_decoder("llama", &["--max-running-sequences", "2", "--max-queued-sequences", "4"]);
    let long = json!({"inputs": ["a"], "max_tokens": 120, "temperature": 1.0, "stream": true, "logit_bias": {"0": -100.0, "3": -100.0}});
    let open = || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build();
        let agent: ureq::Agent = agent.into();
        agent.post(app.url("/generate")).header("content-type", "application/json").send(long.to_string()).unwrap()
    };
    for _ in 0..10 {
        drop(open());
    }
    let gauge = |name: &str| {
        let text = app.get("/metrics").text();
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is not in {text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    crate::api::kill_points::wait_until("nobody is generated for", || {
        gauge("espalier_sequences_running") + gauge("espalier_sequences_queued") == 0.0
    });
    assert_eq!(generate(&app, "", json!(["a"]), json!({"max_tokens": 2})).len(), 1);
}
