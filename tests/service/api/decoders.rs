//! Tests of decoder base models with the tasks of encoders, with last-token and mean pooling.

use crate::api::server_process::{ServerConfig, ServerProcess};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};

const DECODERS: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gpt2"];

fn start_with_decoder(model_type: &str) -> ServerProcess {
    ServerConfig::new().with_base_model(fixture("architectures").join(model_type)).start()
}

/// Texts with equal last words, whose label depends on earlier words.
fn text(index: usize) -> (String, &'static str) {
    let (label, word) = [("lost", "lost"), ("fee", "fee"), ("refund", "refund")][index % 3];
    let filler = ["please", "my account", "why", "how is it", "to pay"][index / 3 % 5];
    (format!("{filler} {word} on order {}", index % 7), label)
}

fn predictions(app: &ServerProcess, adapter: &str, inputs: &[String]) -> Vec<Value> {
    let answer = app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["predictions"].as_array().unwrap().clone()
}

#[test]
fn decoder_classifies_from_the_last_token() {
    let rows: Vec<Value> = (0..60).map(text).map(|(text, label)| json!({"text": text, "label": label})).collect();
    let (asked, labels): (Vec<String>, Vec<&str>) = (60..90).map(text).unzip();
    for model_type in DECODERS {
        let app = start_with_decoder(model_type);
        let base = app.get("/base").json();
        assert_eq!((&base["model_type"], &base["poolings"]), (&json!(model_type), &json!(["last", "mean"])));
        let targets = if model_type == "gpt2" { json!(["c_attn"]) } else { json!(["q_proj", "v_proj"]) };
        for method in [json!({"type": "lora", "target_modules": targets}), json!({"type": "prefix_tuning"})] {
            let job = json!({"name": "told", "examples": rows, "method": method, "hyperparameters": {"epochs": 20}});
            let job = app.train_to_success(&job);
            let found = predictions(&app, "told", &asked);
            let right = found.iter().zip(&labels).filter(|(found, label)| found["label"] == **label).count();
            assert!(right >= 27, "{right} of 30 on {model_type}: {:#}", job["metrics"]["validation"]);
        }
        // The adapter loaded from disk gives the same predictions.
        let (told, zip) = (predictions(&app, "told", &asked), app.get("/adapters/told/download").body);
        let options = json!({"name": "again"});
        let kept = app.post_file("/adapters", ("options", &options), ("adapter", "adapter.zip", &zip));
        assert_eq!(kept.status, 201, "{}", kept.text());
        assert_eq!(predictions(&app, "again", &asked), told);
    }
}

#[test]
fn unsupported_decoder_tasks_are_rejected() {
    let app = start_with_decoder("llama");
    let rows: Vec<Value> = (0..12).map(text).map(|(text, label)| json!({"text": text, "label": label})).collect();
    for (pooling, words) in [("first", "pooling"), ("cls", "pooling")] {
        let task = json!({"type": "sequence_classification", "pooling": pooling});
        let refused = app.post("/jobs", &json!({"examples": rows, "task": task}));
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(refused.json()["errors"][0]["pointer"].as_str().unwrap().contains(words), "{}", refused.text());
    }
    let refused = app.post("/jobs", &json!({"examples": [{"text": "a"}], "task": {"type": "masked_language_model"}}));
    assert_eq!(refused.status, 422, "{}", refused.text());
}
