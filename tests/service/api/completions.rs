//! Tests of `/v1/completions`: scoring of texts, log probabilities, limits on tokens, selection of texts.

use crate::api::generation::{lora, read_stream, start_with_decoder};
use crate::api::server_process::ServerProcess;
use serde_json::{Value, json};

fn complete(app: &ServerProcess, fields: Value) -> Value {
    let mut request = json!({"model": app.get("/base").json()["name"], "temperature": 0});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post("/v1/completions", &request);
    assert_eq!(answer.status, 200, "{request}: {}", answer.text());
    answer.json()
}

fn refusal(app: &ServerProcess, fields: Value) -> Value {
    let mut request = json!({"model": app.get("/base").json()["name"]});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post("/v1/completions", &request);
    assert_eq!(answer.status, 400, "{request}: {}", answer.text());
    answer.json()["error"].clone()
}

fn floats(list: &Value) -> Vec<Option<f64>> {
    list.as_array().unwrap().iter().map(Value::as_f64).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

const TEXT: &str = "Where is my card? I ordered it for 12 € a week ago.";

#[test]
fn a_text_is_scored() {
    for model_type in ["llama", "gpt2"] {
        let app = start_with_decoder(model_type, &["--prefill-chunk-tokens", "5"]);
        let scored = complete(&app, json!({"prompt": TEXT, "echo": true, "logprobs": 3, "max_tokens": 0}));
        let choice = &scored["choices"][0];
        assert_eq!((text(&choice["text"]), text(&choice["finish_reason"])), (TEXT, "length"));
        assert_eq!(scored["usage"]["completion_tokens"], 0);
        let lists = &choice["logprobs"];
        let scores = floats(&lists["token_logprobs"]);
        assert_eq!((scores[0], &lists["top_logprobs"][0]), (None, &Value::Null));
        assert_eq!(scores.len() as u64, scored["usage"]["prompt_tokens"].as_u64().unwrap());
        for (index, top) in lists["top_logprobs"].as_array().unwrap().iter().enumerate().skip(1) {
            let top = top.as_object().unwrap();
            assert_eq!(top[text(&lists["tokens"][index])].as_f64(), scores[index], "{top:?}");
            assert!(top.len() == 3 || top.len() == 4, "{top:?}");
        }
    }
}

/// Generation of a forced token after each prefix gives the same numbers by another way.
#[test]
fn scores_of_a_prompt_are_those_of_generation() {
    for model_type in ["llama", "gpt2"] {
        let app = start_with_decoder(model_type, &["--prefill-chunk-tokens", "5"]);
        let ids: Vec<u32> = (0..40).map(|index| 20 + 37 * index % 200).collect();
        let scored =
            complete(&app, json!({"prompt": ids, "echo": true, "logprobs": 4, "prompt_logprobs": 2, "max_tokens": 1}));
        let choice = &scored["choices"][0];
        let scores = floats(&choice["logprobs"]["token_logprobs"]);
        assert_eq!(scores.len(), ids.len() + 1);
        for index in 1..ids.len() {
            let forced = json!({"prompt": ids[..index], "max_tokens": 1, "logprobs": 4, "logit_bias": {ids[index].to_string(): 100}});
            let forced = complete(&app, forced)["choices"][0]["logprobs"].clone();
            assert_eq!(floats(&forced["token_logprobs"])[0], scores[index], "{index}");
            assert_eq!(forced["tokens"][0], choice["logprobs"]["tokens"][index]);
            assert_eq!(forced["top_logprobs"][0], choice["logprobs"]["top_logprobs"][index]);
            let position = &choice["prompt_logprobs"][index];
            let own = &position[ids[index].to_string()];
            assert_eq!(own["logprob"].as_f64(), scores[index]);
            let rank = own["rank"].as_u64().unwrap();
            assert_eq!(position.as_object().unwrap().len(), if rank <= 2 { 2 } else { 3 }, "{position}");
        }
    }
}

#[test]
fn scores_are_the_same_alone_and_together_after_a_cached_prefix_and_with_an_adapter() {
    let app = start_with_decoder("qwen2", &["--prefill-chunk-tokens", "7"]);
    for (name, method) in
        [("lora", lora()), ("prompt", json!({"type": "prompt_tuning"})), ("prefix", json!({"type": "prefix_tuning"}))]
    {
        let rows: Vec<Value> = (0..12).map(|_| json!({"prompt": "fruit red", "completion": " apple"})).collect();
        app.train_to_success(&json!({"name": name, "examples": rows, "method": method,
            "hyperparameters": {"max_steps": 2, "learning_rate": 0.05}}));
    }
    let base = app.get("/base").json()["name"].clone();
    let prompts = [TEXT, "Where is my card? I never got it.", "x y", TEXT];
    let fields = json!({"echo": true, "logprobs": 2, "max_tokens": 3});
    for model in [base, json!("lora"), json!("prompt"), json!("prefix")] {
        let ask = |prompt: Value| {
            let mut fields = fields.clone();
            fields["model"] = model.clone();
            fields["prompt"] = prompt;
            complete(&app, fields)["choices"].as_array().unwrap().clone()
        };
        let alone: Vec<Value> = prompts.iter().map(|prompt| ask(json!(prompt))[0].clone()).collect();
        let together = ask(json!(prompts));
        for (one, other) in alone.iter().zip(&together) {
            assert_eq!((&one["text"], &one["logprobs"]), (&other["text"], &other["logprobs"]));
        }
        assert_ne!(alone[0]["logprobs"], alone[1]["logprobs"]);
    }
}

#[test]
fn offsets_and_tokens_follow_the_text() {
    let app = start_with_decoder("llama", &[]);
    let answer = complete(&app, json!({"prompt": TEXT, "echo": true, "logprobs": 1, "max_tokens": 4}));
    let choice = &answer["choices"][0];
    let characters: Vec<char> = text(&choice["text"]).chars().collect();
    let offsets: Vec<usize> = choice["logprobs"]["text_offset"]
        .as_array()
        .unwrap()
        .iter()
        .map(|offset| offset.as_u64().unwrap() as usize)
        .collect();
    let tokens: Vec<&str> = choice["logprobs"]["tokens"].as_array().unwrap().iter().map(text).collect();
    assert!(text(&choice["text"]).starts_with(TEXT));
    assert_eq!(tokens.len() as u64, answer["usage"]["total_tokens"].as_u64().unwrap());
    let mut checked = 0;
    for (index, token) in tokens.iter().enumerate() {
        let end = offsets.get(index + 1).copied().unwrap_or(characters.len());
        let piece: String = characters[offsets[index]..end].iter().collect();
        // Special tokens and pieces of a character have no text of their own.
        if !piece.is_empty() && !token.starts_with("bytes:") {
            assert_eq!(&piece, token, "{offsets:?}");
            checked += 1;
        }
    }
    assert!(checked > 10 && tokens.iter().any(|token| token.starts_with("bytes:\\x")), "{tokens:?}");
    // Without echo the offsets start at 0, and special tokens of a list of ids are part of its text.
    let plain = complete(&app, json!({"prompt": TEXT, "logprobs": 0, "max_tokens": 2}));
    assert_eq!(plain["choices"][0]["logprobs"]["text_offset"][0], 0);
    let echoed = complete(&app, json!({"prompt": [[2, 60, 61], [62]], "echo": true, "max_tokens": 0}));
    assert_eq!(echoed["choices"].as_array().unwrap().len(), 2);
    assert_eq!(echoed["choices"][0]["logprobs"], Value::Null);
    assert!(text(&echoed["choices"][0]["text"]).starts_with("<|im_start|>"), "{echoed:#}");
}

/// The value with its numbers in `f32`: a stream writes them with the digits of an `f64`.
fn rounded(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap() as f32),
        Value::Array(items) => items.iter().map(rounded).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), rounded(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn streamed_echo_equals_the_whole_answer() {
    let app = start_with_decoder("llama", &[]);
    let fields =
        json!({"prompt": [TEXT, "x"], "echo": true, "logprobs": 2, "n": 2, "max_tokens": 3, "prompt_logprobs": 1});
    let whole = complete(&app, fields.clone());
    let mut request = json!({"model": app.get("/base").json()["name"], "temperature": 0, "stream": true,
        "stream_options": {"include_usage": true}});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let frames = read_stream(&app, "/v1/completions", &request);
    assert_eq!(frames.last().unwrap()["usage"], whole["usage"]);
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        let own: Vec<&Value> = frames
            .iter()
            .flat_map(|frame| &frame["choices"].as_array().unwrap()[..])
            .filter(|one| one["index"] == index)
            .collect();
        let said: String = own.iter().map(|one| text(&one["text"])).collect();
        assert_eq!(said, text(&choice["text"]));
        let list = |name: &str| -> Vec<Value> {
            own.iter().filter_map(|one| one["logprobs"][name].as_array()).flatten().cloned().collect()
        };
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(rounded(&json!(list(name))), rounded(&choice["logprobs"][name]), "{name}");
        }
        assert_eq!(rounded(&own[0]["prompt_logprobs"]), rounded(&choice["prompt_logprobs"]));
    }
}

#[test]
fn limits_beyond_the_room_mean_the_room() {
    let app = start_with_decoder("llama", &[]);
    let room = app.get("/base").json()["max_tokens"].as_u64().unwrap();
    // No token ends the text.
    let fields = json!({"prompt": "a", "logit_bias": {"0": -100, "1": -100, "2": -100, "3": -100}});
    for limit in [json!(-1), json!(4_000_000_000_000_u64), json!(room), json!(-1.0)] {
        let mut fields = fields.clone();
        fields["max_tokens"] = limit;
        let usage = complete(&app, fields)["usage"].clone();
        assert_eq!(usage["total_tokens"], room, "{usage}");
    }
    assert_eq!(complete(&app, fields.clone())["usage"]["completion_tokens"], 16);
    let chat = json!({"model": app.get("/base").json()["name"], "messages": [{"role": "user", "content": "a"}],
        "max_tokens": -1, "logit_bias": fields["logit_bias"]});
    let answer = app.post("/v1/chat/completions", &chat);
    assert_eq!((answer.status, &answer.json()["usage"]["total_tokens"]), (200, &json!(room)), "{}", answer.text());
    for (fields, param) in [
        (json!({"prompt": "a", "max_tokens": -2}), "max_tokens"),
        (json!({"prompt": "a", "logprobs": 21}), "logprobs"),
        (json!({"prompt": "a", "prompt_logprobs": 21}), "prompt_logprobs"),
        (json!({"prompt": "a", "suffix": "b"}), "suffix"),
        (json!({"prompt": "a", "n": 3, "best_of": 2}), "best_of"),
        (json!({"prompt": "a", "n": 1, "best_of": 2, "stream": true}), "best_of"),
    ] {
        assert_eq!(refusal(&app, fields.clone())["param"], param, "{fields}");
    }
    let long: Vec<u32> = vec![60; room as usize];
    assert_eq!(complete(&app, json!({"prompt": long, "max_tokens": 0}))["usage"]["total_tokens"], room);
    refusal(&app, json!({"prompt": long, "max_tokens": 1}));
}

#[test]
fn the_best_texts_are_returned() {
    let app = start_with_decoder("llama", &[]);
    let fields = json!({"prompt": ["a", "b"], "temperature": 1.5, "seed": 5, "max_tokens": 6, "logprobs": 0});
    let ask = |more: Value| {
        let mut fields = fields.clone();
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        complete(&app, fields)
    };
    let mean = |choice: &Value| {
        let logprobs = floats(&choice["logprobs"]["token_logprobs"]);
        logprobs.iter().flatten().sum::<f64>() / logprobs.len() as f64
    };
    let all = ask(json!({"n": 5}));
    let best = ask(json!({"n": 2, "best_of": 5}));
    assert_eq!(best["usage"], all["usage"]);
    for prompt in 0..2 {
        let mut choices = all["choices"].as_array().unwrap()[5 * prompt..5 * (prompt + 1)].to_vec();
        choices.sort_by(|one, other| mean(other).total_cmp(&mean(one)));
        let texts = |choices: &[Value]| choices.iter().map(|one| one["text"].clone()).collect::<Vec<Value>>();
        let found = &best["choices"].as_array().unwrap()[2 * prompt..2 * (prompt + 1)];
        assert_eq!(texts(found), texts(&choices[..2]));
    }
}
