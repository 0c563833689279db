//! Tests of jobs that start from an adapter: they start with its exact tensors for every method, and report what cannot be reused.

use espalier_core::adapter;
use espalier_core::artifact::{self, ImportRequest};
use espalier_core::model::{BaseModel, Pooling};
use espalier_core::task::{self, Example, RowSchema, Target};
use espalier_core::training::spec::Request;
use espalier_core::training::warm_start::{HeadReuse, SourceAdapter};
use espalier_core::training::{
    self, Dirs, Outcome, Progress, Settings, SourceWeights, Spec, StopReason, TrainingData, TrainingResult,
};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Learning rate that changes no bit of any parameter.
const ZERO_LEARNING_RATE: f64 = 1e-30;

fn hyperparameters(learning_rate: f64, steps: u64) -> training::Hyperparameters {
    let hyperparameters = json!({"batch_size": 8, "learning_rate": learning_rate, "max_steps": steps, "seed": 3});
    serde_json::from_value(hyperparameters).unwrap()
}

fn request(learning_rate: f64, steps: u64) -> Request {
    Request { hyperparameters: hyperparameters(learning_rate, steps), ..Request::default() }
}

fn resolved(base: &BaseModel, request: &Request, examples: &[Example]) -> Spec {
    let labels: Vec<String> = examples.iter().flat_map(|example| example.target.labels().to_vec()).collect();
    Spec::resolve(request, &labels, examples.len(), base).unwrap()
}

fn data(examples: Vec<Example>, source: Option<SourceWeights>) -> TrainingData {
    TrainingData { examples, validation: None, source_weights: source }
}

fn train(base: &Arc<BaseModel>, spec: &Spec, data: &TrainingData) -> TrainingResult {
    let folder = tempfile::tempdir().unwrap();
    let mut on_progress = |_: &Progress| ControlFlow::Continue(());
    attempt(base, spec, data, folder.path(), &mut on_progress).expect("the run stopped")
}

fn attempt(
    base: &Arc<BaseModel>,
    spec: &Spec,
    data: &TrainingData,
    folder: &Path,
    report: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
) -> Option<TrainingResult> {
    let folders = Dirs { checkpoints: folder.join("job"), feature_cache: folder.join("features") };
    let settings = Settings {
        threads: 2,
        checkpoint_interval: Duration::ZERO,
        feature_cache_bytes: 1 << 20,
        activation_memory_bytes: u64::MAX,
    };
    match training::train(base, spec, data, &folders, &settings, report).unwrap() {
        Outcome::Finished(trained) => Some(*trained),
        Outcome::Stopped(_) => None,
    }
}

fn origin(spec: &Spec) -> SourceAdapter {
    SourceAdapter {
        version: "0a".repeat(32),
        task: spec.task.clone(),
        method: spec.method.clone(),
        labels: spec.labels.clone(),
        max_length: spec.hyperparameters.max_length as usize,
    }
}

fn source(origin: &SourceAdapter, trained: &TrainingResult) -> SourceWeights {
    SourceWeights { labels: origin.labels.clone(), weights: trained.weights.clone() }
}

/// Adapter that was trained for a few steps.
fn adapter(base: &Arc<BaseModel>, method: Value, examples: &[Example]) -> (SourceAdapter, TrainingResult) {
    let method = Some(serde_json::from_value(method).unwrap());
    let spec = resolved(base, &Request { method, ..request(0.01, 6) }, examples);
    let trained = train(base, &spec, &data(examples.to_vec(), None));
    (origin(&spec), trained)
}

fn spec_from_adapter(base: &BaseModel, origin: &SourceAdapter, request: Request, examples: &[Example]) -> Spec {
    let task = Some(training::warm_start::resolve_task(origin, RowSchema::Label));
    resolved(base, &Request { from_adapter: Some(origin.clone()), task, ..request }, examples)
}

const METHODS: [&str; 15] = [
    r#"{"type": "lora", "dropout": 0.1}"#,
    r#"{"type": "lora", "dora": true, "bias": "lora_only", "target_modules": ["query", "feed_forward_out"]}"#,
    r#"{"type": "lora", "rank_pattern": {"value": 2}, "rslora": true, "layers": {"top": 1}}"#,
    r#"{"type": "ia3"}"#,
    r#"{"type": "prompt_tuning", "num_virtual_tokens": 5, "init": {"text": "where is my card"}}"#,
    r#"{"type": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 10}"#,
    r#"{"type": "prefix_tuning", "num_virtual_tokens": 4}"#,
    r#"{"type": "prefix_tuning", "num_virtual_tokens": 6, "projection_hidden_size": 9, "layers": {"top": 1}}"#,
    r#"{"type": "bottleneck", "reduction_factor": 2.0}"#,
    r#"{"type": "bottleneck", "placement": "houlsby", "reduction_factor": 4.0}"#,
    r#"{"type": "bias"}"#,
    r#"{"type": "layer_norm"}"#,
    r#"{"type": "vera", "rank": 12}"#,
    r#"{"type": "vera", "rank": 5, "target_modules": "all-linear", "projection_seed": 7}"#,
    r#"{"type": "head"}"#,
];

#[test]
fn every_method_resumes_bit_identically_from_its_adapter() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(40);
    for method in METHODS {
        let (origin, first) = adapter(&base, serde_json::from_str(method).unwrap(), &examples);
        let spec = spec_from_adapter(&base, &origin, request(ZERO_LEARNING_RATE, 1), &examples);
        let from = spec.from_adapter.as_ref().unwrap();
        assert_eq!((from.head, &from.note, &spec.method), (HeadReuse::Kept, &None, &origin.method), "{method}");
        let data = data(examples.clone(), Some(source(&origin, &first)));
        let started = train(&base, &spec, &data);
        assert_eq!(started.weights, first.weights, "{method}");
        let row = &started.metrics_rows[0];
        assert_eq!((row.step, row.split.as_str()), (0, "start"), "{method}");
        assert_eq!(row.metrics["from_adapter"]["head"], "kept");

        let spec = spec_from_adapter(&base, &origin, request(0.01, 12), &examples);
        let trained = train(&base, &spec, &data);
        let before = trained.metrics_rows.iter().find(|row| row.split == "validation" && row.step == 0).unwrap();
        assert_eq!(before.metrics["loss"], started.metrics["validation"]["loss"], "{method}");
        let losses: Vec<f64> = trained.metrics_rows.iter().filter_map(|row| row.metrics["loss"].as_f64()).collect();
        assert!(losses.iter().any(|loss| *loss != losses[0]), "{method}: the loss did not change");
    }
}

#[test]
fn interrupted_warm_start_is_bit_identical() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(40);
    for method in [METHODS[0], METHODS[5], METHODS[12]] {
        let (origin, first) = adapter(&base, serde_json::from_str(method).unwrap(), &examples);
        let spec = spec_from_adapter(&base, &origin, request(0.01, 16), &examples);
        let data = data(examples.clone(), Some(source(&origin, &first)));
        let expected = train(&base, &spec, &data);
        let folder = tempfile::tempdir().unwrap();
        let mut attempts = 0;
        let found = loop {
            attempts += 1;
            let mut remaining_reports = 4;
            let mut count_down = |_: &Progress| {
                remaining_reports -= 1;
                if remaining_reports < 0 { ControlFlow::Break(StopReason::Requeue) } else { ControlFlow::Continue(()) }
            };
            if let Some(trained) = attempt(&base, &spec, &data, folder.path(), &mut count_down) {
                break trained;
            }
            assert!(attempts < 100, "an attempt made no progress");
        };
        assert!(attempts > 3, "the run was not interrupted");
        assert_eq!(
            (found.weights, found.metrics_rows, found.metrics),
            (expected.weights, expected.metrics_rows, expected.metrics)
        );
    }
}

#[test]
fn new_labels_are_appended_and_old_head_rows_kept() {
    let base = espalier_testing::jobs::tiny_base();
    let all = espalier_testing::jobs::examples(60);
    let known: Vec<Example> =
        all.iter().filter(|example| example.target.labels() != ["arrival".to_string()]).cloned().collect();
    for method in [json!({"type": "lora"}), json!({"type": "head"})] {
        let (origin, first) = adapter(&base, method, &known);
        assert_eq!(origin.labels, ["fee", "help"]);
        let spec = spec_from_adapter(&base, &origin, request(ZERO_LEARNING_RATE, 1), &all);
        assert_eq!(spec.labels, ["fee", "help", "arrival"]);
        assert_eq!(spec.from_adapter.as_ref().unwrap().head, HeadReuse::Extended);
        let trained = train(&base, &spec, &data(all.clone(), Some(source(&origin, &first))));
        let head = |trained: &TrainingResult, name: &str| trained.weights[name].values.clone();
        for (name, width) in [("head.weight", 32), ("head.bias", 1)] {
            let (old, new) = (head(&first, name), head(&trained, name));
            assert_eq!((new.len(), &new[..old.len()]), (3 * width, old.as_slice()), "{name}");
            assert!(
                new[old.len()..].iter().any(|value| *value != 0.0),
                "{name}: the new label has no row of the probe"
            );
        }
        let accuracy = trained.metrics["validation"]["accuracy"].as_f64().unwrap();
        assert!(accuracy > 0.8, "the accuracy of the extended head is {accuracy}");
    }
}

#[test]
fn incompatible_head_is_reinitialized_with_a_note() {
    let base = espalier_testing::jobs::tiny_base();
    let all = espalier_testing::jobs::examples(60);
    let (origin, first) = adapter(&base, json!({"type": "lora"}), &all);
    let rest: Vec<Example> =
        all.iter().filter(|example| example.target.labels() != ["fee".to_string()]).cloned().collect();
    let spec = spec_from_adapter(&base, &origin, request(ZERO_LEARNING_RATE, 1), &rest);
    let from = spec.from_adapter.clone().unwrap();
    assert_eq!((from.head, spec.labels.len()), (HeadReuse::Fresh, 2));
    assert!(from.note.unwrap().contains("no example of 1 of the adapter's labels, such as \"fee\""));
    let trained = train(&base, &spec, &data(rest, Some(source(&origin, &first))));
    for (name, tensor) in first.weights.iter().filter(|(name, _)| !name.starts_with("head.")) {
        assert_eq!(&trained.weights[name], tensor, "{name} is not reused");
    }
    assert_eq!(trained.weights["head.bias"].shape, [2]);
    assert_eq!(trained.metrics_rows[0].metrics["from_adapter"]["head"], "fresh");

    let values: Vec<Example> = (0..40u32)
        .map(|index| Example { target: Target::Value(f64::from(index % 5)), ..all[index as usize].clone() })
        .collect();
    let request = Request {
        from_adapter: Some(origin.clone()),
        task: Some(RowSchema::Value.default_task()),
        ..request(ZERO_LEARNING_RATE, 1)
    };
    let spec = Spec::resolve(&request, &[], values.len(), &base).unwrap();
    assert!(spec.from_adapter.as_ref().unwrap().note.as_ref().unwrap().contains("regression"));
    let regression = train(&base, &spec, &data(values.clone(), Some(source(&origin, &first))));
    assert_eq!(regression.weights["head.bias"].shape, [1]);

    // The head of a regression has outputs in the unit of the data, and is trained in a scaled unit.
    let own = SourceAdapter { task: spec.task.clone(), labels: Vec::new(), ..origin };
    let request = Request { from_adapter: Some(own.clone()), ..request };
    let spec = Spec::resolve(&request, &[], values.len(), &base).unwrap();
    assert_eq!(spec.from_adapter.as_ref().unwrap().head, HeadReuse::Kept);
    let again = train(&base, &spec, &data(values, Some(source(&own, &regression))));
    for (found, expected) in again.weights["head.weight"].values.iter().zip(&regression.weights["head.weight"].values) {
        assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{found}, not {expected}");
    }
}

#[test]
fn a_different_method_is_rejected_at_its_field_and_training_settings_may_differ() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(40);
    let (origin, _) = adapter(&base, json!({"type": "lora", "rank": 4}), &examples);
    let resolve = |method: Value| {
        let method = Some(serde_json::from_value(method).unwrap());
        let request = Request { method, from_adapter: Some(origin.clone()), ..request(0.01, 1) };
        let labels = espalier_testing::jobs::labels(&examples);
        Spec::resolve(&request, &labels, examples.len(), &base)
    };
    for (method, pointer) in [
        (json!({"type": "ia3"}), "/method/type"),
        (json!({"type": "lora"}), "/method/alpha /method/rank"),
        (json!({"type": "lora", "rank": 4, "alpha": 3}), "/method/alpha"),
        (json!({"type": "lora", "rank": 4, "target_modules": ["query"]}), "/method/target_modules"),
        (json!({"type": "lora", "rank": 4, "layers": {"top": 1}}), "/method/layers"),
        (json!({"type": "lora", "rank": 4, "dora": true}), "/method/dora"),
    ] {
        let espalier_core::error::Error::Invalid(problem) = resolve(method.clone()).unwrap_err() else {
            panic!("{method}")
        };
        let pointers: Vec<String> =
            problem.errors.iter().map(|error| json!(error)["pointer"].as_str().unwrap().to_string()).collect();
        assert_eq!((problem.code, pointers.join(" ").as_str()), ("invalid_job", pointer), "{}", problem.detail);
        assert!(problem.detail.contains("leave \"method\" out"), "{}", problem.detail);
    }
    let spec = resolve(json!({"type": "lora", "rank": 4, "dropout": 0.25, "learning_rate_ratio": 4.0})).unwrap();
    let adapter::Config::Lora(lora) = &spec.method else { panic!("LoRA was expected") };
    assert_eq!((lora.rank, lora.dropout, lora.learning_rate_ratio), (4, 0.25, 4.0));
}

#[test]
fn training_of_an_imported_adapter_starts_from_its_tensors() {
    let root = espalier_testing::jobs::fixture("peft-methods");
    let base_named = |name: &str| {
        let kernels = Arc::new(espalier_tensor::backend::cpu::CpuBackend::detect());
        Arc::new(BaseModel::load(&espalier_testing::jobs::fixture("tiny-bert"), name, kernels).unwrap())
    };
    let mut count = 0;
    for folder in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        let base = base_named("tiny-bert");
        let temporary = tempfile::tempdir().unwrap();
        let labels = ["arrival", "fee", "help"].map(String::from).to_vec();
        let request_of_import = ImportRequest {
            labels: Some(labels.clone()),
            base: Some("tiny-bert".to_string()),
            max_length: Some(64),
            ..ImportRequest::default()
        };
        let zip = folder.join("adapter.zip");
        let imported =
            artifact::import(&zip, &request_of_import, &base, temporary.path(), &artifact::ImportLimits::default())
                .unwrap();
        let manifest = &imported.manifest;
        assert_eq!(manifest.task, task::Config::default().with_pooling(Pooling::Cls));
        let origin = SourceAdapter {
            version: "0b".repeat(32),
            task: manifest.task.clone(),
            method: manifest.method.clone(),
            labels,
            max_length: manifest.max_length,
        };
        let examples = espalier_testing::jobs::examples(40);
        let spec = spec_from_adapter(&base, &origin, request(ZERO_LEARNING_RATE, 1), &examples);
        let source = SourceWeights { labels: manifest.labels.clone(), weights: imported.weights.clone() };
        let trained = train(&base, &spec, &data(examples, Some(source)));
        assert_eq!(trained.weights, imported.weights, "{}", folder.display());
        count += 1;
    }
    assert!(count >= 8);
}

/// LoRA request for a task, and its examples.
fn request_and_examples(task: &task::Config) -> (Request, Vec<Example>) {
    let method = Some(serde_json::from_value(json!({"type": "lora"})).unwrap());
    let request = Request { method, task: Some(task.clone()), ..request(0.01, 6) };
    (request, espalier_testing::tasks::examples(task, 40))
}

#[test]
fn every_task_starts_from_its_own_adapter_and_from_that_of_any_other_task() {
    for task in espalier_testing::tasks::all_tasks() {
        let base = espalier_testing::tasks::base_for_task(&task);
        let (request, examples) = request_and_examples(&task);
        let spec = resolved(&base, &request, &examples);
        let trained = train(&base, &spec, &data(examples.clone(), None));
        let origin = origin(&spec);
        for other in espalier_testing::tasks::all_tasks()
            .into_iter()
            .filter(|other| other.is_generative() == task.is_generative())
        {
            let (_, examples) = request_and_examples(&other);
            let request = Request {
                from_adapter: Some(origin.clone()),
                task: Some(other.clone()),
                ..self::request(ZERO_LEARNING_RATE, 1)
            };
            let spec = resolved(&base, &request, &examples);
            let started = train(&base, &spec, &data(examples, Some(source(&origin, &trained))));
            let from = spec.from_adapter.as_ref().unwrap();
            // Without a head in either task there is none to initialise.
            let is_kept = task == other || [&task, &other].iter().all(|task| task.head_outputs(&[]).is_none());
            assert_eq!((from.head == HeadReuse::Kept, from.note.is_none()), (is_kept, is_kept), "{from:?}");
            let is_head = |name: &str| name.starts_with("head.");
            for (name, tensor) in started.weights.iter().filter(|(name, _)| task == other || !is_head(name)) {
                let close = |(one, other): (&f32, &f32)| (one - other).abs() <= 1e-5 * other.abs().max(1.0);
                assert!(
                    tensor.values.iter().zip(&trained.weights[name].values).all(close),
                    "{name}, {task:?} to {other:?}"
                );
            }
            assert_eq!(
                started.weights.keys().any(|name| is_head(name)),
                spec.task.head_outputs(&spec.labels).is_some()
            );
        }
    }
}
