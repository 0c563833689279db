//! Adapters in and out on a real base: what PEFT trained answers the same here, what we export comes back, and nothing
//! damaged, foreign or without effect gets in. The files are PEFT's own (`tests/peft/make_theirs.py`, `damage.py`);
//! `ESPALIER_PEFT_MODEL` and `ESPALIER_PEFT_CASES` point to others, made for another base.

use espalier_core::artifact::{self, Adapted, Artifact, ImportRequest, Published, Settings, probe, zip};
use espalier_core::error::{Error, Result};
use espalier_core::model::Base;
use espalier_core::task::Input;
use espalier_tensor::candle::Candle;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn folder(variable: &str, committed: &str) -> PathBuf {
    let committed = || espalier_testing::workspace().join("tests/fixtures").join(committed);
    std::env::var_os(variable).map_or_else(committed, PathBuf::from)
}

fn model() -> PathBuf {
    folder("ESPALIER_PEFT_MODEL", "tiny-bert")
}

fn cases() -> PathBuf {
    folder("ESPALIER_PEFT_CASES", "peft-tiny")
}

fn json_file(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The base under the name that the adapters' configs give.
fn base() -> Base {
    load(&model())
}

fn load(folder: &Path) -> Base {
    let named = json_file(cases().join("adapter/adapter_config.json"));
    Base::load(folder, named["base_model_name_or_path"].as_str().unwrap(), Arc::new(Candle::cpu())).unwrap()
}

/// A base like ours whose weights differ a little.
fn retrained() -> (TempDir, Base) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(model().join(name), folder.path().join(name)).unwrap();
    }
    let mut weights = fs::read(model().join("model.safetensors")).unwrap();
    // Doubles some exponents' lowest bit in the last tensors: the pooler's.
    let end = weights.len();
    weights[end - 4000..].chunks_exact_mut(4).for_each(|value| value[2] ^= 0x80);
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let base = load(folder.path());
    (folder, base)
}

fn import(zip: &Path, request: &ImportRequest, base: &Base) -> Result<Artifact> {
    let temporary = tempfile::tempdir().unwrap();
    let imported = artifact::import(zip, request, base, temporary.path(), &Settings::default());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
    imported
}

fn theirs(base: &Base) -> Artifact {
    let max_length = json_file(cases().join("expected.json"))["max_length"].as_u64().unwrap() as usize;
    let request = ImportRequest { max_length: Some(max_length), ..ImportRequest::default() };
    import(&cases().join("adapter.zip"), &request, base).unwrap()
}

fn inputs() -> Vec<Input> {
    serde_json::from_value(json_file(cases().join("inputs.json"))).unwrap()
}

fn logits(artifact: &Artifact, base: &Base) -> Vec<Vec<f32>> {
    Adapted::load(artifact, base).unwrap().outputs(base, &inputs()).unwrap()
}

fn publish(artifact: &Artifact, base: &Base, folder: &Path) -> Published {
    artifact::write(artifact, base, folder, &folder.join("temporary")).unwrap()
}

fn export(artifact: &Artifact, base: &Base, folder: &Path) -> (String, PathBuf) {
    let version = publish(artifact, base, folder).version;
    let path = folder.join("export.zip");
    let provenance = json!({"job_id": "a", "created_at": "b"});
    zip::export(&folder.join(&version), &version, &provenance, File::create(&path).unwrap()).unwrap();
    (version, path)
}

#[test]
fn an_adapter_trained_by_peft_answers_the_same_here() {
    let base = base();
    compare(&logits(&theirs(&base), &base), &cases());
}

#[test]
fn single_layers_the_pooler_and_rslora_answer_the_same_here() {
    let committed = espalier_testing::workspace().join("tests/fixtures");
    let base = Base::load(&committed.join("tiny-bert"), "example/tiny-bert", Arc::new(Candle::cpu())).unwrap();
    let cases = committed.join("peft-layers");
    let request = ImportRequest { max_length: Some(64), ..ImportRequest::default() };
    let artifact = import(&cases.join("adapter.zip"), &request, &base).unwrap();
    compare(&logits(&artifact, &base), &cases);
    let place = tempfile::tempdir().unwrap();
    let version = publish(&artifact, &base, place.path()).version;
    assert_eq!(artifact::read(place.path(), &version, &base).unwrap(), artifact);
}

fn compare(found: &[Vec<f32>], cases: &Path) {
    let expected: Vec<Vec<f32>> =
        serde_json::from_value(json_file(cases.join("expected.json"))["logits"].take()).unwrap();
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    let largest = pairs.map(|(found, expected)| (found - expected).abs()).fold(0f32, f32::max);
    assert_eq!(found.len(), expected.len());
    assert!(largest <= 1e-4, "logits differ by {largest}");
}

#[test]
fn an_imported_adapter_is_proven_and_not_verified() {
    let artifact = theirs(&base());
    assert_eq!(artifact.card.base.fingerprint, None);
    assert!(!artifact.card.probe.inputs.is_empty());
    assert_eq!(artifact.card.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn every_damaged_adapter_is_refused_with_its_reason() {
    let base = base();
    let damaged = folder("ESPALIER_PEFT_DAMAGED", "peft-damaged");
    for (name, refusal) in json_file(damaged.join("expected.json")).as_object().unwrap() {
        let error = import(&damaged.join(format!("{name}.zip")), &ImportRequest::default(), &base).unwrap_err();
        assert_eq!(error.code(), refusal["code"], "{name}: {error}");
        assert!(error.to_string().contains(refusal["words"].as_str().unwrap()), "{name}: {error}");
        assert!(matches!(error, Error::Invalid(_)), "{name} is the caller's fault");
    }
}

#[test]
fn a_published_adapter_answers_bit_for_bit_as_before() {
    let base = base();
    let place = tempfile::tempdir().unwrap();
    let artifact = theirs(&base);
    let version = publish(&artifact, &base, place.path()).version;
    let back = artifact::read(place.path(), &version, &base).unwrap();
    assert_eq!(back, artifact);
    assert_eq!(logits(&back, &base), logits(&artifact, &base));
    probe::check(&Adapted::load(&back, &base).unwrap(), &base, &back.card.probe).unwrap();
}

#[test]
fn our_export_comes_back_with_the_same_version() {
    let base = base();
    let mut artifact = theirs(&base);
    artifact.card.base.fingerprint = Some(base.info().fingerprint.clone());
    let place = tempfile::tempdir().unwrap();
    let (version, path) = export(&artifact, &base, place.path());
    let back = import(&path, &ImportRequest::default(), &base).unwrap();
    let other = tempfile::tempdir().unwrap();
    assert_eq!(publish(&back, &base, other.path()).version, version);
}

#[test]
fn another_base_is_refused_by_its_fingerprint_and_without_one_by_the_probe() {
    let base = base();
    let (_folder, retrained) = retrained();
    let place = tempfile::tempdir().unwrap();
    let mut artifact = theirs(&base);

    let (_, unverified) = export(&artifact, &base, place.path());
    assert_eq!(import(&unverified, &ImportRequest::default(), &retrained).unwrap_err().code(), "probe_failed");

    artifact.card.base.fingerprint = Some(base.info().fingerprint.clone());
    let (version, verified) = export(&artifact, &base, place.path());
    assert_eq!(import(&verified, &ImportRequest::default(), &retrained).unwrap_err().code(), "other_base");
    let error = artifact::read(place.path(), &version, &retrained).unwrap_err();
    assert!(matches!(&error, Error::Conflict(problem) if problem.code == "other_base"), "{error}");
}

#[test]
fn an_export_that_records_no_effect_is_refused_although_its_probe_agrees() {
    let base = base();
    let mut artifact = theirs(&base);
    artifact.weights.iter_mut().filter(|(name, _)| name.ends_with("lora_B")).for_each(|(_, b)| b.values.fill(0.0));
    artifact.card.probe.outputs =
        Adapted::load(&artifact, &base).unwrap().outputs(&base, &artifact.card.probe.inputs).unwrap();
    let place = tempfile::tempdir().unwrap();
    let (_, path) = export(&artifact, &base, place.path());
    assert_eq!(import(&path, &ImportRequest::default(), &base).unwrap_err().code(), "adapter_without_effect");
}
