//! Pins the version hash (sha256 of the published files) of one small adapter per method and one per task. A refactoring
//! must not change these bytes. A change that is meant to alter them replaces the file with the JSON that the failing test
//! prints, and says so in CHANGELOG.md.

use espalier_core::adapter::{self, lora};
use espalier_core::artifact::{self, AdapterManifest, Artifact, BaseModelId, Probe, Vocabulary, probe};
use espalier_core::model::BaseModel;
use espalier_core::task::Input;
use espalier_core::training::{self, Dirs, Hyperparameters, Outcome, Settings, Spec, TrainingData, TrainingResult};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Versions = BTreeMap<String, String>;

fn pinned() -> Versions {
    serde_json::from_str(include_str!("../../../../tests/fixtures/version-hashes.json")).unwrap()
}

fn assert_pinned(prefix: &str, found: &Versions) {
    let pinned: Versions = pinned().into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
    assert_eq!(found, &pinned, "the hashes of this build:\n{}", serde_json::to_string_pretty(found).unwrap());
}

fn hyperparameters() -> Hyperparameters {
    let given =
        serde_json::json!({"epochs": 2, "batch_size": 8, "seed": 3, "learning_rate": 0.01, "published_epoch": "best"});
    serde_json::from_value(given).unwrap()
}

fn train(base: &Arc<BaseModel>, spec: &Spec, data: &TrainingData, folder: &Path) -> TrainingResult {
    let settings = Settings {
        threads: 1,
        checkpoint_interval: Duration::from_secs(3600),
        feature_cache_bytes: 1 << 20,
        activation_memory_bytes: u64::MAX,
    };
    let folders = Dirs { checkpoints: folder.join("checkpoints"), feature_cache: folder.join("remembered") };
    match training::train(base, spec, data, &folders, &settings, &mut |_| ControlFlow::Continue(())).unwrap() {
        Outcome::Finished(trained) => *trained,
        Outcome::Stopped(stop) => panic!("the training was stopped: {stop:?}"),
    }
}

/// Trains, records the probe, publishes, and returns the version.
fn version(base: &Arc<BaseModel>, spec: &Spec, data: &TrainingData) -> String {
    let folder = tempfile::tempdir().unwrap();
    let trained = train(base, spec, data, folder.path());
    let info = base.info();
    let manifest = AdapterManifest {
        format: 1,
        task: spec.task.clone(),
        method: spec.method.clone(),
        vocabulary: Vocabulary::default(),
        labels: spec.labels.clone(),
        temperature: trained.temperature,
        thresholds: trained.thresholds,
        max_length: spec.hyperparameters.max_length as usize,
        base: BaseModelId { name: info.name.clone(), fingerprint: Some(info.fingerprint.clone()) },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: info.backend.clone() },
        metrics: Some(trained.metrics),
    };
    let mut artifact = Artifact { manifest, weights: trained.weights };
    let inputs = trained.probe_examples.into_iter().map(Input::from).collect();
    artifact.manifest.probe = probe::record_probe(&artifact, base, inputs).unwrap();
    artifact::publish_artifact(&artifact, base, &folder.path().join("adapters"), &folder.path().join("temporary"))
        .unwrap()
        .version
}

#[test]
fn one_adapter_per_method_has_the_pinned_version() {
    let settings = serde_json::json!([
        {"type": "lora", "dropout": 0.1},
        {"type": "lora", "rank": 3, "rslora": true, "dora": true, "target_modules": "all-linear", "bias": "lora_only"},
        {"type": "ia3"},
        {"type": "prompt_tuning", "num_virtual_tokens": 5},
        {"type": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 10},
        {"type": "prefix_tuning", "num_virtual_tokens": 4},
        {"type": "prefix_tuning", "num_virtual_tokens": 6, "projection_hidden_size": 9},
        {"type": "bottleneck", "reduction_factor": 2.0},
        {"type": "bottleneck", "placement": "parallel", "activation": "tanh"},
        {"type": "bias"},
        {"type": "layer_norm"},
        {"type": "vera", "rank": 12},
        {"type": "head", "dropout": 0.1},
    ]);
    let methods: Vec<adapter::Config> = serde_json::from_value(settings.clone()).unwrap();
    let is_pinned = |name: &&str| methods.iter().any(|method| method.name() == *name);
    assert!(adapter::METHOD_NAMES.iter().all(is_pinned), "every method is pinned");
    let base = espalier_testing::jobs::tiny_base();
    let names = settings.as_array().unwrap().iter().map(|method| format!("method {method}"));
    let found = names.zip(&methods).map(|(name, method)| {
        let (spec, data) = espalier_testing::jobs::spec_and_data(&base, method.clone(), hyperparameters(), 24);
        (name, version(&base, &spec, &data))
    });
    assert_pinned("method ", &found.collect());
}

#[test]
fn one_adapter_per_task_has_the_pinned_version() {
    let found = espalier_testing::tasks::all_tasks().into_iter().map(|task| {
        let base = espalier_testing::tasks::base_for_task(&task);
        let method = adapter::Config::Lora(lora::Config::default());
        let (spec, data) = espalier_testing::tasks::spec_and_data(&base, &task, method, hyperparameters(), 24);
        (format!("task {}", serde_json::to_string(&task).unwrap()), version(&base, &spec, &data))
    });
    assert_pinned("task ", &found.collect());
}
