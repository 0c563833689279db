//! Bottlenecks over HTTP in AdapterHub's form.

use crate::api::app::{App, Setup, small_job};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::fs;

fn logits(app: &App, adapter: &str) -> Value {
    let inputs = json!(["where is my card", "a fee was charged", "help"]);
    let answer = app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs, "logits": true}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows = answer.json()["predictions"].as_array().unwrap().clone();
    rows.into_iter().map(|row| row["logits"].clone()).collect()
}

fn train(app: &App, name: &str, method: &str, pooling: &str, head: &Value) {
    app.trained(&small_job(
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
fn a_bottleneck_leaves_in_adapterhubs_form_and_comes_back_with_its_answers() {
    let app = Setup::new().start();
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
fn what_adapterhub_has_no_word_for_is_downloaded_as_pefts() {
    let app = Setup::new().start();
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
