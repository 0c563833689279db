//! Tests of importing, downloading and deleting adapters, damaged files, and adapters of another base model.

use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn short_job(name: &str, seed: u64) -> Value {
    small_job(30, json!({"name": name, "hyperparameters": {"epochs": 3, "seed": seed}}))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn predict(app: &ServerProcess, adapter: &str, inputs: &Value) -> crate::api::server_process::HttpResponse {
    app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs, "logits": true}))
}

fn logits(app: &ServerProcess, adapter: &str, inputs: &Value) -> Vec<Vec<f64>> {
    let answer = predict(app, adapter, inputs);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let row = |prediction: &Value| serde_json::from_value(prediction["logits"].clone()).unwrap();
    answer["predictions"].as_array().unwrap().iter().map(row).collect()
}

fn max_abs_difference(one: &[Vec<f64>], other: &[Vec<f64>]) -> f64 {
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().flatten().zip(other.iter().flatten());
    pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

fn assert_rejected(answer: &crate::api::server_process::HttpResponse, status: u16, code: &str, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem:#} should say {words}");
}

fn upload(app: &ServerProcess, zip: &[u8]) -> crate::api::server_process::HttpResponse {
    app.post_bytes("/adapters", "application/zip", zip)
}

fn download(app: &ServerProcess, adapter: &str) -> Vec<u8> {
    let answer = app.get(&format!("/adapters/{adapter}/download"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/zip")));
    answer.body
}

/// Folder of an adapter's version.
fn folder(app: &ServerProcess, adapter: &str) -> PathBuf {
    let version = app.get(&format!("/adapters/{adapter}")).json()["version"].clone();
    app.setup.data_dir().join("adapters").join(version.as_str().unwrap().trim_start_matches("sha256:"))
}

#[test]
fn peft_adapter_reproduces_pefts_logits() {
    let app = ServerConfig::new().start();
    let peft = fixture("peft-tiny");
    let expected = read_json(&peft.join("expected.json"));
    let options = json!({"name": "theirs", "labels": ["a", "b", "c"], "max_length": expected["max_length"]});
    let zip = fs::read(peft.join("adapter.zip")).unwrap();
    let answer = app.post_file("/adapters", ("options", &options), ("adapter", "adapter.zip", &zip));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["base_verified"], false);

    let inputs = read_json(&peft.join("inputs.json"));
    let expected: Vec<Vec<f64>> = serde_json::from_value(expected["logits"].clone()).unwrap();
    // PEFT accepts an empty text; this server rejects it.
    let (inputs, expected): (Vec<Value>, Vec<Vec<f64>>) =
        inputs.as_array().unwrap().iter().cloned().zip(expected).filter(|(input, _)| input["text"] != "").unzip();
    let difference = max_abs_difference(&logits(&app, "theirs", &json!(inputs)), &expected);
    println!("largest difference from PEFT's logits: {difference:.1e}");
    assert!(difference <= 1e-4, "{difference}");
}

#[test]
fn downloaded_adapter_reimports_with_the_same_version() {
    let app = ServerConfig::new().start();
    app.train_to_success(&short_job("mean", 1));
    let mut cls = short_job("cls", 2);
    cls["task"] = json!({"type": "sequence_classification", "pooling": "cls"});
    app.train_to_success(&cls);
    let theirs = upload(&app, &fs::read(fixture("peft-tiny").join("adapter.zip")).unwrap()).json();
    let inputs = json!(["where is my card", {"text": "a fee was charged", "text_pair": "for the transfer"}]);
    for adapter in ["mean", "cls", theirs["id"].as_str().unwrap()] {
        let before = app.get(&format!("/adapters/{adapter}")).json();
        let answer = upload(&app, &download(&app, adapter));
        assert_eq!(answer.status, 201, "{}", answer.text());
        let back = answer.json();
        assert_ne!(back["id"], before["id"]);
        for field in ["version", "labels", "method", "task", "base", "base_verified", "bytes"] {
            assert_eq!(back[field], before[field], "{field}");
        }
        let again = logits(&app, back["id"].as_str().unwrap(), &inputs);
        assert_eq!(again, logits(&app, adapter, &inputs));

        // Deleting one adapter leaves the other with the same version.
        assert_eq!(app.delete(&format!("/adapters/{}", before["id"].as_str().unwrap())).status, 204);
        assert_eq!(logits(&app, back["id"].as_str().unwrap(), &inputs), again);
    }
}

#[test]
fn damaged_upload_is_rejected_and_stores_nothing() {
    let app = ServerConfig::new().start();
    let folder = fixture("peft-damaged");
    let expected = read_json(&folder.join("expected.json"));
    for name in ["missing-tensor", "extra-tensor", "wrong-shape", "cut-off", "pickle", "other-base", "no-effect"] {
        let answer = upload(&app, &fs::read(folder.join(format!("{name}.zip"))).unwrap());
        let (code, words) = (&expected[name]["code"], &expected[name]["words"]);
        assert_rejected(&answer, 422, code.as_str().unwrap(), words.as_str().unwrap());
    }
    assert_eq!(app.get("/adapters").json()["data"], json!([]));
    assert_eq!(file_count(&app.setup.data_dir().join("adapters")), 0);
    assert_eq!(file_count(&app.setup.data_dir().join("temporary")), 0);
}

/// All files below a folder.
fn file_count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { file_count(&path) } else { 1 }).sum()
}

#[test]
fn damaged_adapter_on_disk_fails_without_affecting_others() {
    let app = ServerConfig::new().start();
    for (name, seed) in [("flipped", 1), ("partial", 2), ("whole", 3)] {
        app.train_to_success(&short_job(name, seed));
    }
    let tensors = folder(&app, "flipped").join("adapter_model.safetensors");
    let sound = fs::read(&tensors).unwrap();
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&tensors, &flipped).unwrap();
    fs::remove_file(folder(&app, "partial").join("espalier.json")).unwrap();

    let inputs = json!(["where is my card"]);
    for _ in 0..2 {
        assert_rejected(&predict(&app, "flipped", &inputs), 409, "adapter_damaged", "their hash is");
        assert_rejected(&predict(&app, "partial", &inputs), 409, "adapter_damaged", "No such file");
        assert_eq!(predict(&app, "whole", &inputs).status, 200);
    }
    assert_rejected(&app.get("/adapters/flipped/download"), 409, "adapter_damaged", "their hash is");

    // Errors are not cached, and a damaged adapter can be deleted.
    fs::write(&tensors, &sound).unwrap();
    assert_eq!(predict(&app, "flipped", &inputs).status, 200);
    assert_eq!(app.delete("/adapters/partial").status, 204);
    assert_eq!(predict(&app, "partial", &inputs).status, 404);
}

#[test]
fn republishing_repairs_a_damaged_folder() {
    let app = ServerConfig::new().start();
    app.train_to_success(&short_job("questions", 1));
    let zip = download(&app, "questions");
    fs::remove_file(folder(&app, "questions").join("adapter_config.json")).unwrap();
    let inputs = json!(["where is my card"]);
    assert_rejected(&predict(&app, "questions", &inputs), 409, "adapter_damaged", "No such file");
    assert_eq!(upload(&app, &zip).status, 201);
    assert_eq!(predict(&app, "questions", &inputs).status, 200);
}

#[test]
fn adapter_of_another_base_is_rejected() {
    let mut app = ServerConfig::new().start();
    app.train_to_success(&short_job("ours", 1));
    let zip = download(&app, "ours");
    let theirs = app.post_bytes(
        "/adapters?name=theirs",
        "application/zip",
        &fs::read(fixture("peft-tiny").join("adapter.zip")).unwrap(),
    );
    assert_eq!(theirs.status, 201, "{}", theirs.text());
    assert!(app.terminate().0.success());

    let home = tempfile::tempdir().unwrap();
    let app = app.setup.clone().with_base_model(other_base(home.path())).start();
    let inputs = json!(["where is my card"]);
    assert_rejected(&predict(&app, "ours", &inputs), 409, "other_base", "was made for the base");
    // A plain PEFT folder has no fingerprint: names and shapes match, but the probe fails.
    assert_rejected(&predict(&app, "theirs", &inputs), 409, "probe_failed", "does not answer its probe");
    assert_rejected(&upload(&app, &zip), 422, "other_base", "was made for the base");
    assert_eq!(app.post("/predict", &json!({"inputs": inputs})).status, 200);
    app.train_to_success(&short_job("ours", 1));
    assert_eq!(predict(&app, "ours", &inputs).status, 200, "the name points to the one of this base");
}

/// Copy of the tiny base model with the same name and one changed weight.
pub fn other_base(home: &Path) -> PathBuf {
    let (from, to) = (fixture("tiny-bert"), home.join("tiny-bert"));
    fs::create_dir_all(to.join("1_Pooling")).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let mut bytes = fs::read(from.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let (_, tensor) = tensors
        .as_object()
        .unwrap()
        .iter()
        .find(|(name, _)| name.ends_with("encoder.layer.0.output.LayerNorm.bias"))
        .unwrap();
    let place = header + tensor["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[place..place + 4].copy_from_slice(&5f32.to_le_bytes());
    fs::write(to.join("model.safetensors"), bytes).unwrap();
    to
}
