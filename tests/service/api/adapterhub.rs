//! Tests of importing and exporting bottleneck adapters in AdapterHub's format.

use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::fs;

fn logits(app: &ServerProcess, adapter: &str) -> Value {
    let inputs = json!(["where is my card", "a fee was charged", "help"]);
    let answer = app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs, "logits": true}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows = answer.json()["predictions"].as_array().unwrap().clone();
    rows.into_iter().map(|row| row["logits"].clone()).collect()
}

fn train(app: &ServerProcess, name: &str, method: &str, pooling: &str, head: &Value) {
    app.train_to_success(&small_job(
        30,
        json!({
            "name": name,
            "task": {"type": "sequence_classification", "pooling": pooling, "head": head},
            "method": {"type": method},
            "hyperparameters": {"max_steps": 4},
        }),
    ));
}

#[test]
fn bottleneck_round_trips_through_adapterhub_format() {
    let app = ServerConfig::new().start();
    let dense = json!({"type": "dense", "activation": "relu"});
    for (name, pooling, head) in [("first", "first", &dense), ("cls", "cls", &json!({"type": "linear"}))] {
        train(&app, name, "bottleneck", pooling, head);
        let zip = app.get(&format!("/adapters/{name}/download?format=adapterhub"));
        assert_eq!((zip.status, zip.header("content-type")), (200, Some("application/zip")), "{}", zip.text());
        let back = app.post_bytes("/adapters?name=back", "application/zip", &zip.body);
        assert_eq!(back.status, 201, "{}", back.text());
        let (back, ours) = (back.json(), app.get(&format!("/adapters/{name}")).json());
        assert_eq!((&back["labels"], &back["method"]), (&ours["labels"], &ours["method"]));
        assert_eq!(back["base_verified"], false, "their files do not hold the base's fingerprint");
        assert_eq!(logits(&app, "back"), logits(&app, name));
    }
    let theirs = fs::read(fixture("adapterhub/houlsby/adapter.zip")).unwrap();
    let options = json!({"name": "theirs", "base": "tiny-bert"});
    let answer = app.post_file("/adapters", ("options", &options), ("adapter", "adapter.zip", &theirs));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["method"]["placement"], "houlsby");
}

#[test]
fn unsupported_adapterhub_export_is_rejected() {
    let app = ServerConfig::new().start();
    train(&app, "mean", "bottleneck", "mean", &json!({"type": "linear"}));
    train(&app, "lora", "lora", "cls", &json!({"type": "linear"}));
    for (path, code, words) in [
        ("mean/download?format=adapterhub", "unsupported_format", "the mean of a sequence"),
        ("lora/download?format=adapterhub", "unsupported_format", "the method lora"),
        ("lora/download?format=onnx", "invalid_query", "`adapterhub`"),
    ] {
        let answer = app.get(&format!("/adapters/{path}"));
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (422, &json!(code)), "{problem:#}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem:#}");
    }
    assert_eq!(app.get("/adapters/lora/download?format=peft").status, 200);
}
