//! Heads with a dense layer: those of RoBERTa and DistilBERT, and one that a request sets. They start near the linear probe of the
//! frozen features, learn, round-trip bit for bit, and are written under transformers' keys.

use espalier::serving::AdapterHandle;
use espalier::serving::multi_adapter::{self, AdapterGroup};
use espalier_core::artifact::{
    self, AdapterManifest, Artifact, BaseModelId, BaseSummary, LoadedAdapter, Probe, Vocabulary, folder::AdapterFiles,
    probe, safetensors,
};
use espalier_core::model::{BaseModel, Pooling};
use espalier_core::task::{self, Input};
use espalier_core::training::{
    self, Dirs, Hyperparameters, Outcome, Settings, Spec, TrainingData, TrainingResult, Validation, spec::Request,
};
use espalier_tensor::backend::Activation;
use espalier_tensor::backend::cpu::CpuBackend;
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

fn base(model: &str) -> Arc<BaseModel> {
    Arc::new(
        BaseModel::load(&espalier_testing::jobs::fixture(model), "example/base", Arc::new(CpuBackend::detect()))
            .unwrap(),
    )
}

/// A job on 90 examples, of which `validation` is the fraction of the validation split.
fn job(base: &BaseModel, task: Value, method: Value, steps: usize, validation: f64) -> (Spec, TrainingData) {
    let examples = espalier_testing::jobs::examples(90);
    let hyperparameters = json!({"max_steps": steps, "batch_size": 16, "seed": 3, "learning_rate": 0.003});
    let request = Request {
        task: Some(serde_json::from_value(task).unwrap()),
        method: Some(serde_json::from_value(method).unwrap()),
        hyperparameters: serde_json::from_value::<Hyperparameters>(hyperparameters).unwrap(),
        validation: Some(Validation::Fraction(validation)),
        ..Request::default()
    };
    let spec = Spec::resolve(&request, &espalier_testing::jobs::labels(&examples), examples.len(), base).unwrap();
    (spec, TrainingData { examples, validation: None, source_weights: None })
}

fn train(base: &Arc<BaseModel>, (spec, data): &(Spec, TrainingData)) -> TrainingResult {
    let folder = tempfile::tempdir().unwrap();
    let folders = Dirs { checkpoints: folder.path().join("job"), feature_cache: folder.path().join("remembered") };
    let settings = Settings {
        threads: 2,
        checkpoint_interval: Duration::from_secs(3600),
        feature_cache_bytes: 1 << 20,
        activation_memory_bytes: u64::MAX,
    };
    match training::train(base, spec, data, &folders, &settings, &mut |_| ControlFlow::Continue(())).unwrap() {
        Outcome::Finished(trained) => *trained,
        Outcome::Stopped(stop) => panic!("the training was stopped: {stop:?}"),
    }
}

fn artifact(base: &BaseModel, spec: &Spec, trained: &TrainingResult) -> Artifact {
    let empty = Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: base.info().backend.clone() };
    let manifest = AdapterManifest {
        format: 1,
        task: spec.task.clone(),
        method: spec.method.clone(),
        vocabulary: Vocabulary::default(),
        labels: spec.labels.clone(),
        temperature: trained.temperature,
        thresholds: Default::default(),
        max_length: 64,
        base: BaseModelId { name: base.info().name.clone(), fingerprint: Some(base.info().fingerprint.clone()) },
        probe: empty,
        metrics: None,
    };
    let mut artifact = Artifact { manifest, weights: trained.weights.clone() };
    let inputs = trained.probe_examples.iter().map(|example| Input::from_text(&example.text)).collect();
    artifact.manifest.probe = probe::record_probe(&artifact, base, inputs).unwrap();
    artifact
}

/// Accuracy on the validation split before the first step.
fn initial_accuracy(trained: &TrainingResult) -> f64 {
    let first = trained.metrics_rows.iter().find(|row| row.split == "validation").unwrap();
    first.metrics["accuracy"].as_f64().unwrap()
}

#[test]
fn cls_pooling_of_roberta_and_distilbert_uses_their_own_heads() {
    let cases = [
        ("architectures/roberta", Activation::Tanh, "classifier.dense", "classifier.out_proj", json!(["classifier"])),
        (
            "architectures/distilbert",
            Activation::Relu,
            "pre_classifier",
            "classifier",
            json!(["pre_classifier", "classifier"]),
        ),
    ];
    for (model, activation, dense, output, saved) in cases {
        let base = base(model);
        let task = json!({"type": "sequence_classification", "pooling": "cls"});
        let job = job(&base, task, json!({"type": "lora", "target_modules": "all-linear"}), 20, 0.1);
        assert_eq!(job.0.task.head_activation(), Some(activation), "the head is resolved");
        let trained = train(&base, &job);
        let artifact = artifact(&base, &job.0, &trained);
        let files = AdapterFiles::from_artifact(&artifact, &BaseSummary::from_base(&base)).unwrap();
        let config: Value = serde_json::from_slice(&files.config).unwrap();
        assert_eq!((&config["task_type"], &config["modules_to_save"]), (&json!("SEQ_CLS"), &saved), "{model}");
        let targets = config["target_modules"].as_array().unwrap();
        assert!(!targets.contains(&json!("dense")), "{model}: {targets:?} would match the head");
        let tensors = safetensors::read(&files.weights).unwrap();
        for (path, rows) in [(dense, 32), (output, 3)] {
            let weight = &tensors[&format!("base_model.model.{path}.weight")];
            assert_eq!(weight.shape, [rows, 32], "{model}: {path}");
        }
        let folder = tempfile::tempdir().unwrap();
        let version = artifact::publish_artifact(&artifact, &base, folder.path(), &folder.path().join("temporary"))
            .unwrap()
            .version;
        let back = artifact::load_published(folder.path(), &version, &base).unwrap();
        assert_eq!(back, artifact);
        let logits = |artifact: &Artifact| {
            LoadedAdapter::load(artifact, &base).unwrap().forward(&base, &artifact.manifest.probe.inputs).unwrap()
        };
        assert_eq!(logits(&back), artifact.manifest.probe.outputs);
    }
}

#[test]
fn dense_head_starts_near_the_linear_probe() {
    let base = base("tiny-bert");
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::First] {
        let mut task = json!({"type": "sequence_classification", "pooling": pooling});
        let head = json!({"type": "head"});
        let linear = initial_accuracy(&train(&base, &job(&base, task.clone(), head.clone(), 1, 0.4)));
        for activation in ["tanh", "relu", "gelu", "silu"] {
            task["head"] = json!({"type": "dense", "activation": activation});
            let dense = initial_accuracy(&train(&base, &job(&base, task.clone(), head.clone(), 1, 0.4)));
            println!("{pooling:?} {activation}: it starts at {dense:.3}, the probe at {linear:.3}");
            assert!(dense > linear - 0.06, "{pooling:?} {activation}: it starts at {dense}, the probe at {linear}");

            // Without a validation split the weights of the last step are kept.
            let trained = train(&base, &job(&base, task.clone(), head.clone(), 60, 0.0));
            let losses: Vec<f64> =
                trained.metrics_rows.iter().map(|row| row.metrics["loss"].as_f64().unwrap()).collect();
            assert!(losses[losses.len() - 1] < losses[0] * 0.8, "{pooling:?} {activation}: {losses:?}");
            let dense = &trained.weights["head.dense.weight"].values;
            let beside = (0..32 * 32).filter(|index| index / 32 != index % 32 && dense[*index] != 0.0).count();
            assert!(beside > 900, "the layer learns outside its diagonal: {beside}");
        }
    }
}

#[test]
fn requested_linear_head_on_the_first_token_is_kept() {
    let base = base("architectures/roberta");
    let task = json!({"type": "regression", "pooling": "cls", "head": {"type": "linear"}});
    let request = Request { task: Some(serde_json::from_value(task).unwrap()), ..Request::default() };
    let spec = Spec::resolve(&request, &[], 10, &base).unwrap();
    assert_eq!(spec.task.head_activation(), None);
    let unknown = json!({"type": "regression", "head": {"type": "dense", "width": 3}});
    let error = serde_json::from_value::<task::Config>(unknown).unwrap_err().to_string();
    assert!(error.contains("width"), "{error}");
}

#[test]
fn small_datasets_use_mean_pooling_instead_of_the_pooler() {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(espalier_testing::jobs::fixture("tiny-bert")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    let base = BaseModel::load(folder.path(), "example/base", Arc::new(CpuBackend::detect())).unwrap();
    assert_eq!(base.info().default_pooling, Pooling::Cls, "without 1_Pooling/config.json");
    let pooling = |task: Value, examples| {
        let request = Request { task: Some(serde_json::from_value(task).unwrap()), ..Request::default() };
        let labels = ["a".to_string(), "b".to_string()];
        Spec::resolve(&request, &labels, examples, &base).unwrap().task.pooling().unwrap()
    };
    assert_eq!(pooling(json!({"type": "sequence_classification"}), 199), Pooling::Mean);
    assert_eq!(pooling(json!({"type": "sequence_classification"}), 200), Pooling::Cls);
    assert_eq!(pooling(json!({"type": "sequence_classification", "pooling": "cls"}), 199), Pooling::Cls);
    assert_eq!(pooling(json!({"type": "regression"}), 199), Pooling::Mean);
    assert_eq!(pooling(json!({"type": "embedding"}), 199), Pooling::Cls);
}

#[test]
fn row_is_bit_identical_alone_and_in_a_mixed_batch() {
    let base = base("architectures/roberta");
    let heads = [
        json!({"type": "dense", "activation": "tanh"}),
        json!({"type": "dense", "activation": "relu"}),
        json!({"type": "linear"}),
    ];
    let adapted: Vec<Arc<LoadedAdapter>> = heads
        .into_iter()
        .map(|head| {
            let task = json!({"type": "sequence_classification", "pooling": "cls", "head": head});
            let job = job(&base, task, json!({"type": "lora"}), 3, 0.1);
            Arc::new(LoadedAdapter::load(&artifact(&base, &job.0, &train(&base, &job)), &base).unwrap())
        })
        .collect();
    let texts = ["why was I charged", "when will my new card arrive, please?", "help"];
    let inputs = texts.map(Input::from_text);
    let tokens = |adapted: &LoadedAdapter| inputs.iter().map(|input| adapted.tokenize(&base, input).unwrap()).collect();
    let group = |adapted: &Arc<LoadedAdapter>| AdapterGroup {
        inputs: tokens(adapted),
        adapter: AdapterHandle::new("", Arc::clone(adapted)),
    };
    let together = multi_adapter::forward(&base, &adapted.iter().map(group).collect::<Vec<_>>()).unwrap();
    let alone = adapted.iter().flat_map(|adapted| {
        inputs.iter().map(|input| adapted.forward(&base, std::slice::from_ref(input)).unwrap().concat())
    });
    assert_eq!(together, alone.collect::<Vec<_>>());
}
