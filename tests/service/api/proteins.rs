//! Tests of ESM-2: classification of proteins, and an adapter trained with PEFT on transformers' model.

use crate::api::server_process::ServerConfig;
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};

/// Sequences of three families with different amino acid composition.
fn protein(index: usize) -> (String, &'static str) {
    let (family, letters) = [("charged", "KRDE"), ("greasy", "AVLI"), ("aromatic", "FWYH")][index % 3];
    let letters: Vec<char> = letters.chars().collect();
    let length = 8 + index * 7 % 30;
    let tail = (0..length).map(|place| letters[(place * place + index + place * index) % 4]);
    (['M'].into_iter().chain(tail).collect(), family)
}

#[test]
fn protein_families_are_classified() {
    let app = ServerConfig::new().with_base_model(fixture("architectures").join("esm")).start();
    let rows: Vec<Value> = (0..60)
        .map(|index| {
            let (text, label) = protein(index);
            json!({"text": text, "label": label})
        })
        .collect();
    for pooling in ["mean", "first"] {
        let job = json!({"name": pooling, "examples": rows, "task": {"type": "sequence_classification", "pooling": pooling},
            "method": {"type": "lora"}});
        let job = app.train_to_success(&job);
        assert!(job["metrics"]["validation"]["accuracy"].as_f64().unwrap() > 0.8, "{:#}", job["metrics"]);
        let asked: Vec<(String, &str)> = (100..130).map(protein).collect();
        let inputs: Vec<&String> = asked.iter().map(|(text, _)| text).collect();
        let answer = app.post(&format!("/predict?adapter={pooling}"), &json!({"inputs": inputs}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answers = answer.json()["predictions"].as_array().unwrap().clone();
        let right = answers.iter().zip(&asked).filter(|(found, (_, family))| found["label"] == *family).count();
        assert!(right >= 27, "{right} of 30 by {pooling}");
    }
}

#[test]
fn peft_adapter_on_esm_reproduces_its_logits() {
    let app = ServerConfig::new().with_base_model(fixture("architectures").join("esm")).start();
    let folder = fixture("peft-methods-esm").join("lora-patterns");
    let zip = std::fs::read(folder.join("adapter.zip")).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let options =
        json!({"name": "theirs", "base": app.get("/base").json()["name"], "max_length": expected["max_length"]});
    let kept = app.post_file("/adapters", ("options", &options), ("adapter", "adapter.zip", &zip));
    assert_eq!(kept.status, 201, "{}", kept.text());
    let pairs = expected["inputs"].as_array().unwrap().iter().zip(expected["logits"].as_array().unwrap());
    for (input, logits) in pairs.filter(|(input, _)| input[0] != "") {
        let answer = app.post("/predict?adapter=theirs", &json!({"inputs": [input[0]], "logits": true}));
        let found = answer.json()["predictions"][0]["logits"].clone();
        for (found, expected) in found.as_array().unwrap().iter().zip(logits.as_array().unwrap()) {
            let difference = (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs();
            assert!(difference < 1e-4, "{input}: {found}, not {expected}");
        }
    }
}
