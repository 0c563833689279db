//! Import and export on a base: adapters of PEFT reproduce PEFT's logits, exports round-trip, and adapters that are damaged, for
//! another base or without effect are rejected. PEFT wrote the files (`tests/peft/make_theirs.py`, `damage.py`);
//! `ESPALIER_PEFT_MODEL` and `ESPALIER_PEFT_CASES` point to files for another base.

use espalier_core::artifact::{
    self, Artifact, ImportLimits, ImportRequest, LoadedAdapter, PublishedAdapter, probe, zip,
};
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::Input;
use espalier_tensor::backend::candle::CandleBackend;
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

/// The base, under the name in the adapters' configurations.
fn base() -> BaseModel {
    load(&model())
}

fn load(folder: &Path) -> BaseModel {
    let named = json_file(cases().join("adapter/adapter_config.json"));
    BaseModel::load(folder, named["base_model_name_or_path"].as_str().unwrap(), Arc::new(CandleBackend::cpu())).unwrap()
}

/// The base with slightly different weights.
fn base_with_other_weights() -> (TempDir, BaseModel) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(model().join(name), folder.path().join(name)).unwrap();
    }
    let mut weights = fs::read(model().join("model.safetensors")).unwrap();
    // Flips the lowest bit of the exponents in the last tensors, which are the pooler's.
    let end = weights.len();
    weights[end - 4000..].chunks_exact_mut(4).for_each(|value| value[2] ^= 0x80);
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let base = load(folder.path());
    (folder, base)
}

fn import(zip: &Path, request: &ImportRequest, base: &BaseModel) -> Result<Artifact> {
    let temporary = tempfile::tempdir().unwrap();
    let imported = artifact::import(zip, request, base, temporary.path(), &ImportLimits::default());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "no temporary file remains");
    imported
}

fn peft_artifact(base: &BaseModel) -> Artifact {
    let max_length = json_file(cases().join("expected.json"))["max_length"].as_u64().unwrap() as usize;
    let request = ImportRequest { max_length: Some(max_length), ..ImportRequest::default() };
    import(&cases().join("adapter.zip"), &request, base).unwrap()
}

fn inputs() -> Vec<Input> {
    serde_json::from_value(json_file(cases().join("inputs.json"))).unwrap()
}

fn logits(artifact: &Artifact, base: &BaseModel) -> Vec<Vec<f32>> {
    LoadedAdapter::load(artifact, base).unwrap().forward(base, &inputs()).unwrap()
}

fn publish(artifact: &Artifact, base: &BaseModel, folder: &Path) -> PublishedAdapter {
    artifact::publish_artifact(artifact, base, folder, &folder.join("temporary")).unwrap()
}

fn export(artifact: &Artifact, base: &BaseModel, folder: &Path) -> (String, PathBuf) {
    let version = publish(artifact, base, folder).version;
    let path = folder.join("export.zip");
    let provenance = json!({"job_id": "a", "created_at": "b"});
    zip::write_peft_zip(&folder.join(&version), &version, &provenance, File::create(&path).unwrap()).unwrap();
    (version, path)
}

#[test]
fn peft_adapter_reproduces_pefts_logits() {
    let base = base();
    compare(&logits(&peft_artifact(&base), &base), &cases());
}

#[test]
fn layer_subset_pooler_and_rslora_agree_with_peft() {
    let committed = espalier_testing::workspace().join("tests/fixtures");
    let base =
        BaseModel::load(&committed.join("tiny-bert"), "example/tiny-bert", Arc::new(CandleBackend::cpu())).unwrap();
    let cases = committed.join("peft-layers");
    let request = ImportRequest { max_length: Some(64), ..ImportRequest::default() };
    let artifact = import(&cases.join("adapter.zip"), &request, &base).unwrap();
    compare(&logits(&artifact, &base), &cases);
    let place = tempfile::tempdir().unwrap();
    let version = publish(&artifact, &base, place.path()).version;
    assert_eq!(artifact::load_published(place.path(), &version, &base).unwrap(), artifact);
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
fn imported_adapter_has_a_probe_and_unverified_base() {
    let artifact = peft_artifact(&base());
    assert_eq!(artifact.manifest.base.fingerprint, None);
    assert!(!artifact.manifest.probe.inputs.is_empty());
    assert_eq!(artifact.manifest.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn every_damaged_adapter_is_rejected_with_its_reason() {
    let base = base();
    let damaged = folder("ESPALIER_PEFT_DAMAGED", "peft-damaged");
    for (name, refusal) in json_file(damaged.join("expected.json")).as_object().unwrap() {
        let error = import(&damaged.join(format!("{name}.zip")), &ImportRequest::default(), &base).unwrap_err();
        assert_eq!(error.code(), refusal["code"], "{name}: {error}");
        assert!(error.to_string().contains(refusal["words"].as_str().unwrap()), "{name}: {error}");
        assert!(matches!(error, Error::Invalid(_)), "{name}: {error}");
    }
}

#[test]
fn published_adapter_is_bit_identical() {
    let base = base();
    let place = tempfile::tempdir().unwrap();
    let artifact = peft_artifact(&base);
    let version = publish(&artifact, &base, place.path()).version;
    let back = artifact::load_published(place.path(), &version, &base).unwrap();
    assert_eq!(back, artifact);
    assert_eq!(logits(&back, &base), logits(&artifact, &base));
    probe::verify_probe(&LoadedAdapter::load(&back, &base).unwrap(), &base, &back.manifest.probe).unwrap();
}

#[test]
fn export_reimports_with_the_same_version() {
    let base = base();
    let mut artifact = peft_artifact(&base);
    artifact.manifest.base.fingerprint = Some(base.info().fingerprint.clone());
    let place = tempfile::tempdir().unwrap();
    let (version, path) = export(&artifact, &base, place.path());
    let back = import(&path, &ImportRequest::default(), &base).unwrap();
    let other = tempfile::tempdir().unwrap();
    assert_eq!(publish(&back, &base, other.path()).version, version);
}

#[test]
fn another_base_is_rejected_by_fingerprint_or_by_probe() {
    let base = base();
    let (_folder, retrained) = base_with_other_weights();
    let place = tempfile::tempdir().unwrap();
    let mut artifact = peft_artifact(&base);

    let (_, unverified) = export(&artifact, &base, place.path());
    assert_eq!(import(&unverified, &ImportRequest::default(), &retrained).unwrap_err().code(), "probe_failed");

    artifact.manifest.base.fingerprint = Some(base.info().fingerprint.clone());
    let (version, verified) = export(&artifact, &base, place.path());
    assert_eq!(import(&verified, &ImportRequest::default(), &retrained).unwrap_err().code(), "other_base");
    let error = artifact::load_published(place.path(), &version, &retrained).unwrap_err();
    assert!(matches!(&error, Error::Conflict(problem) if problem.code == "other_base"), "{error}");
}

#[test]
fn export_without_effect_is_rejected() {
    let base = base();
    let mut artifact = peft_artifact(&base);
    artifact.weights.iter_mut().filter(|(name, _)| name.ends_with("lora_B")).for_each(|(_, b)| b.values.fill(0.0));
    artifact.manifest.probe.outputs =
        LoadedAdapter::load(&artifact, &base).unwrap().forward(&base, &artifact.manifest.probe.inputs).unwrap();
    let place = tempfile::tempdir().unwrap();
    let (_, path) = export(&artifact, &base, place.path());
    assert_eq!(import(&path, &ImportRequest::default(), &base).unwrap_err().code(), "adapter_without_effect");
}
