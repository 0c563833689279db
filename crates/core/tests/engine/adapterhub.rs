//! AdapterHub's files compared with the `adapters` package: its adapters reproduce its logits and gradients, and exports hold the same
//! tensors. `tests/adapterhub/make.py` writes the files.

use espalier_core::adapter;
use espalier_core::artifact::adapterhub::{AdapterHubFiles, HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE, WEIGHTS_FILE};
use espalier_core::artifact::{
    self, Artifact, BaseSummary, CONFIG_FILE, ImportLimits, ImportRequest, LoadedAdapter, safetensors, zip,
};
use espalier_core::model::BaseModel;
use espalier_core::task::Input;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::Tensor;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_testing::folders::{input_from_json, max_abs_difference, read_json, read_zip};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tolerance of a logit, and of a gradient relative to the largest value of its tensor.
const TOLERANCE: f32 = 1e-4;
const CASES: [&str; 6] = [
    "adapterhub/houlsby",
    "adapterhub/pfeiffer",
    "adapterhub/parallel",
    "adapterhub/upper",
    "adapterhub-roberta/houlsby",
    "adapterhub-roberta/pfeiffer",
];

/// The base of a case.
fn base(case: &str) -> Arc<BaseModel> {
    let (folder, name) = match case.starts_with("adapterhub-roberta/") {
        true => ("architectures/roberta", "example/tiny-roberta"),
        false => ("tiny-bert", "example/tiny-bert"),
    };
    Arc::new(BaseModel::load(&espalier_testing::jobs::fixture(folder), name, Arc::new(CpuBackend::detect())).unwrap())
}

fn folder(case: &str) -> PathBuf {
    espalier_testing::jobs::fixture(case)
}

fn import(zip: &Path, base: &BaseModel) -> Artifact {
    let temporary = tempfile::tempdir().unwrap();
    let request = ImportRequest { max_length: Some(64), ..ImportRequest::default() };
    artifact::import(zip, &request, base, temporary.path(), &ImportLimits::default()).unwrap()
}

fn logits(artifact: &Artifact, base: &BaseModel, inputs: &Value) -> Vec<f32> {
    let inputs: Vec<Input> = inputs.as_array().unwrap().iter().map(input_from_json).collect();
    LoadedAdapter::load(artifact, base).unwrap().forward(base, &inputs).unwrap().concat()
}

#[test]
fn adapterhub_adapter_reproduces_its_logits() {
    for case in CASES {
        let base = base(case);
        let artifact = import(&folder(case).join("adapter.zip"), &base);
        let expected = read_json(&folder(case).join("expected.json"));
        let theirs: Vec<Vec<f32>> = serde_json::from_value(expected["logits"].clone()).unwrap();
        let difference = max_abs_difference(&logits(&artifact, &base, &expected["inputs"]), &theirs.concat());
        assert!(difference < TOLERANCE, "{case}: a logit differs by {difference}");
        assert_eq!(artifact.manifest.base.fingerprint, None, "{case}: only the probe verifies the base");
    }
    let labelled = import(&folder("adapterhub/upper").join("adapter.zip"), &base("adapterhub/upper"));
    assert_eq!(labelled.manifest.labels, ["card", "refund", "top-up"]);
}

/// The four files, and the same files with gradients instead of tensors.
fn files(case: &str) -> (AdapterHubFiles, AdapterHubFiles) {
    let mut files = read_zip(&folder(case).join("adapter.zip"));
    let mut take = |name: &str| files.remove(name).unwrap();
    let theirs = AdapterHubFiles {
        config: take(CONFIG_FILE),
        weights: take(WEIGHTS_FILE),
        head_config: take(HEAD_CONFIG_FILE),
        head_weights: take(HEAD_WEIGHTS_FILE),
    };
    let gradients = safetensors::read(&fs::read(folder(case).join("gradients.safetensors")).unwrap()).unwrap();
    let (head, own): (BTreeMap<String, Tensor>, _) =
        gradients.into_iter().partition(|(name, _)| name.starts_with("heads."));
    let write = |tensors| safetensors::write(&tensors).unwrap();
    let gradients = AdapterHubFiles { weights: write(own), head_weights: write(head), ..theirs.clone() };
    (theirs, gradients)
}

#[test]
fn gradients_agree_with_pytorch() {
    for case in CASES {
        let base = base(case);
        let artifact = import(&folder(case).join("adapter.zip"), &base);
        let expected = files(case).1.parse(&BaseSummary::from_base(&base)).unwrap().weights;
        let (spec, _) =
            espalier_testing::jobs::spec_and_data(&base, adapter::Config::default(), Hyperparameters::default(), 12);
        let spec = Spec { task: artifact.manifest.task.clone(), method: artifact.manifest.method.clone(), ..spec };
        let texts = read_json(&folder(case).join("expected.json"))["texts"].as_array().unwrap().clone();
        let found = espalier_testing::gradients::cross_entropy_gradients(&base, &spec, artifact.weights, &texts, 64);
        assert_eq!(found.len(), expected.len(), "{case}");
        for (name, found) in found {
            let difference = espalier_testing::gradients::relative_error(&found, &expected[&name].values);
            assert!(difference < TOLERANCE, "{case}: the gradient by {name} differs by {difference}");
        }
    }
}

#[test]
fn adapterhub_export_round_trips() {
    for case in CASES {
        let base = base(case);
        let artifact = import(&folder(case).join("adapter.zip"), &base);
        let ours =
            AdapterHubFiles::from_artifact(&artifact, &BaseSummary::from_base(&base), case.split_once('/').unwrap().1)
                .unwrap();
        let theirs = files(case).0;
        let read = |bytes: &[u8]| safetensors::read(bytes).unwrap();
        assert_eq!(read(&ours.weights), read(&theirs.weights), "{case}");
        assert_eq!(read(&ours.head_weights), read(&theirs.head_weights), "{case}");
        for (ours, theirs) in [(&ours.config, &theirs.config), (&ours.head_config, &theirs.head_config)] {
            let (ours, theirs): (Value, Value) =
                (serde_json::from_slice(ours).unwrap(), serde_json::from_slice(theirs).unwrap());
            for (field, value) in ours.as_object().unwrap().iter().filter(|(field, _)| *field != "config") {
                assert_eq!(*value, theirs[field], "{case}: {field}");
            }
            for (field, value) in ours["config"].as_object().unwrap() {
                // The initialisation has no effect, nor has the activation of a head with one layer.
                let is_indifferent =
                    field == "init_weights" || (field == "activation_function" && theirs["config"]["layers"] == 1);
                let theirs = &theirs["config"][field];
                let same = value == theirs || (value.is_number() && value.as_f64() == theirs.as_f64());
                assert!(same || is_indifferent, "{case}: config.{field} is {value}, not {theirs}");
            }
        }
    }
}

#[test]
fn adapterhub_download_reimports_with_the_same_outputs() {
    let place = tempfile::tempdir().unwrap();
    for case in CASES {
        let base = base(case);
        let artifact = import(&folder(case).join("adapter.zip"), &base);
        let version = artifact::publish_artifact(&artifact, &base, place.path(), &place.path().join("temporary"))
            .unwrap()
            .version;
        let path = place.path().join("export.zip");
        let out = File::create(&path).unwrap();
        let summary = BaseSummary::from_base(&base);
        zip::write_adapterhub_zip(place.path(), &version, &summary, "my.adapter 1", &json!({"job_id": 7}), out)
            .unwrap();
        let back = import(&path, &base);
        assert_eq!(back.weights, artifact.weights, "{case}");
        assert_eq!(
            (back.manifest.task, back.manifest.method),
            (artifact.manifest.task, artifact.manifest.method),
            "{case}"
        );
        let config: Value = serde_json::from_slice(&read_zip(&path)[CONFIG_FILE]).unwrap();
        assert_eq!(config["name"], "my_adapter_1", "PyTorch rejects a dot");
    }
}
