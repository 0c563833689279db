//! Adapters on their way in and out, on disk, and on another base.

use crate::api::app::{App, Setup, small_job};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn brief(name: &str, seed: u64) -> Value {
    small_job(30, json!({"name": name, "hyperparameters": {"epochs": 3, "seed": seed}}))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn ask(app: &App, adapter: &str, inputs: &Value) -> crate::api::app::Answer {
    app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs, "logits": true}))
}

fn logits(app: &App, adapter: &str, inputs: &Value) -> Vec<Vec<f64>> {
    let answer = ask(app, adapter, inputs);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let row = |prediction: &Value| serde_json::from_value(prediction["logits"].clone()).unwrap();
    answer["predictions"].as_array().unwrap().iter().map(row).collect()
}

fn largest_difference(one: &[Vec<f64>], other: &[Vec<f64>]) -> f64 {
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().flatten().zip(other.iter().flatten());
    pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

fn refused(answer: &crate::api::app::Answer, status: u16, code: &str, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem:#} should say {words}");
}

fn upload(app: &App, zip: &[u8]) -> crate::api::app::Answer {
    app.post_bytes("/adapters", "application/zip", zip)
}

fn download(app: &App, adapter: &str) -> Vec<u8> {
    let answer = app.get(&format!("/adapters/{adapter}/download"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/zip")));
    answer.body
}

/// The folder of an adapter's version.
fn folder(app: &App, adapter: &str) -> PathBuf {
    let version = app.get(&format!("/adapters/{adapter}")).json()["version"].clone();
    app.setup.data().join("adapters").join(version.as_str().unwrap().trim_start_matches("sha256:"))
}

#[test]
fn an_adapter_that_peft_trained_answers_as_it_did_there() {
    let app = Setup::new().start();
    let peft = fixture("peft-tiny");
    let expected = read_json(&peft.join("expected.json"));
    let options = json!({"name": "theirs", "labels": ["a", "b", "c"], "max_length": expected["max_length"]});
    let zip = fs::read(peft.join("adapter.zip")).unwrap();
    let answer = app.post_file("/adapters", ("options", &options), ("adapter", "adapter.zip", &zip));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["base_verified"], false);

    let inputs = read_json(&peft.join("inputs.json"));
    let expected: Vec<Vec<f64>> = serde_json::from_value(expected["logits"].clone()).unwrap();
    // PEFT reads an empty text; we refuse it.
    let (inputs, expected): (Vec<Value>, Vec<Vec<f64>>) =
        inputs.as_array().unwrap().iter().cloned().zip(expected).filter(|(input, _)| input["text"] != "").unzip();
    let difference = largest_difference(&logits(&app, "theirs", &json!(inputs)), &expected);
    println!("largest difference from PEFT's logits: {difference:.1e}");
    assert!(difference <= 1e-4, "{difference}");
}

#[test]
fn an_adapter_that_was_downloaded_comes_back_as_the_same_version() {
    let app = Setup::new().start();
    app.trained(&brief("mean", 1));
    let mut cls = brief("cls", 2);
    cls["task"] = json!({"type": "sequence_classification", "pooling": "cls"});
    app.trained(&cls);
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

        // The one is deleted, and the other, of the same version, stays.
        assert_eq!(app.delete(&format!("/adapters/{}", before["id"].as_str().unwrap())).status, 204);
        assert_eq!(logits(&app, back["id"].as_str().unwrap(), &inputs), again);
    }
}

#[test]
fn a_damaged_upload_is_refused_with_the_reason_and_leaves_nothing() {
    let app = Setup::new().start();
    let folder = fixture("peft-damaged");
    let expected = read_json(&folder.join("expected.json"));
    for name in ["missing-tensor", "extra-tensor", "wrong-shape", "cut-off", "pickle", "other-base", "no-effect"] {
        let answer = upload(&app, &fs::read(folder.join(format!("{name}.zip"))).unwrap());
        let (code, words) = (&expected[name]["code"], &expected[name]["words"]);
        refused(&answer, 422, code.as_str().unwrap(), words.as_str().unwrap());
    }
    assert_eq!(app.get("/adapters").json()["data"], json!([]));
    assert_eq!(files(&app.setup.data().join("adapters")), 0);
    assert_eq!(files(&app.setup.data().join("temporary")), 0);
}

/// Files at any depth.
fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[test]
fn an_adapter_that_is_damaged_on_disk_is_refused_and_the_others_answer() {
    let app = Setup::new().start();
    for (name, seed) in [("flipped", 1), ("partial", 2), ("whole", 3)] {
        app.trained(&brief(name, seed));
    }
    let tensors = folder(&app, "flipped").join("adapter_model.safetensors");
    let sound = fs::read(&tensors).unwrap();
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&tensors, &flipped).unwrap();
    fs::remove_file(folder(&app, "partial").join("espalier.json")).unwrap();

    let inputs = json!(["where is my card"]);
    for _ in 0..2 {
        refused(&ask(&app, "flipped", &inputs), 409, "adapter_damaged", "their hash is");
        refused(&ask(&app, "partial", &inputs), 409, "adapter_damaged", "No such file");
        assert_eq!(ask(&app, "whole", &inputs).status, 200);
    }
    refused(&app.get("/adapters/flipped/download"), 409, "adapter_damaged", "their hash is");

    // An error is not remembered, and what is damaged can be deleted.
    fs::write(&tensors, &sound).unwrap();
    assert_eq!(ask(&app, "flipped", &inputs).status, 200);
    assert_eq!(app.delete("/adapters/partial").status, 204);
    assert_eq!(ask(&app, "partial", &inputs).status, 404);
}

#[test]
fn a_damaged_folder_is_made_whole_by_publishing_the_same_adapter_again() {
    let app = Setup::new().start();
    app.trained(&brief("questions", 1));
    let zip = download(&app, "questions");
    fs::remove_file(folder(&app, "questions").join("adapter_config.json")).unwrap();
    let inputs = json!(["where is my card"]);
    refused(&ask(&app, "questions", &inputs), 409, "adapter_damaged", "No such file");
    assert_eq!(upload(&app, &zip).status, 201);
    assert_eq!(ask(&app, "questions", &inputs).status, 200);
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let mut app = Setup::new().start();
    app.trained(&brief("ours", 1));
    let zip = download(&app, "ours");
    let theirs = app.post_bytes(
        "/adapters?name=theirs",
        "application/zip",
        &fs::read(fixture("peft-tiny").join("adapter.zip")).unwrap(),
    );
    assert_eq!(theirs.status, 201, "{}", theirs.text());
    assert!(app.terminate().0.success());

    let home = tempfile::tempdir().unwrap();
    let app = app.setup.clone().based_on(other_base(home.path())).start();
    let inputs = json!(["where is my card"]);
    refused(&ask(&app, "ours", &inputs), 409, "other_base", "was made for the base");
    // A plain PEFT folder has no fingerprint: its name fits, and its proof of effect does not.
    refused(&ask(&app, "theirs", &inputs), 409, "probe_failed", "does not answer its probe");
    refused(&upload(&app, &zip), 422, "other_base", "was made for the base");
    assert_eq!(app.post("/predict", &json!({"inputs": inputs})).status, 200);
    app.trained(&brief("ours", 1));
    assert_eq!(ask(&app, "ours", &inputs).status, 200, "the name points to the one of this base");
}

/// The tiny base, its name included, with one weight changed.
fn other_base(home: &Path) -> PathBuf {
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
