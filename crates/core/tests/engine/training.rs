//! Tests of training runs: the result depends on data, specification and seed alone, not on threads or interruptions.

use espalier_core::adapter::{self, lora};
use espalier_core::model::{BaseModel, Pooling};
use espalier_core::task;
use espalier_core::training::hyperparameters::Precision;
use espalier_core::training::{
    self, Dirs, Hyperparameters, MetricsRow, Outcome, Progress, Settings, Spec, StopReason, TrainingData,
    TrainingResult,
};
use espalier_tensor::seeded_rng::SeededRng;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn hyperparameters() -> Hyperparameters {
    let request = serde_json::json!({"epochs": 3, "batch_size": 8, "seed": 5, "learning_rate": 0.01});
    serde_json::from_value(request).unwrap()
}

fn lora(dropout: f64) -> adapter::Config {
    adapter::Config::Lora(lora::Config { dropout, ..lora::Config::default() })
}

fn settings(threads: usize, checkpoint_every: Duration) -> Settings {
    Settings {
        threads,
        checkpoint_interval: checkpoint_every,
        feature_cache_bytes: 1 << 20,
        activation_memory_bytes: u64::MAX,
    }
}

fn folders(folder: &Path) -> Dirs {
    Dirs { checkpoints: folder.join("job"), feature_cache: folder.join("features") }
}

fn train_uninterrupted(base: &Arc<BaseModel>, spec: &Spec, data: &TrainingData, threads: usize) -> TrainingResult {
    let folder = tempfile::tempdir().unwrap();
    train_in(base, spec, data, &settings(threads, Duration::from_secs(3600)), &folders(folder.path()))
}

fn train_in(
    base: &Arc<BaseModel>,
    spec: &Spec,
    data: &TrainingData,
    settings: &Settings,
    folders: &Dirs,
) -> TrainingResult {
    let mut on_progress = |_: &Progress| ControlFlow::Continue(());
    match training::train(base, spec, data, folders, settings, &mut on_progress).unwrap() {
        Outcome::Finished(trained) => *trained,
        Outcome::Stopped(stop) => panic!("the run stopped: {stop:?}"),
    }
}

fn assert_equal(found: &TrainingResult, expected: &TrainingResult) {
    assert_eq!(found.metrics_rows, expected.metrics_rows);
    assert_eq!(found.metrics, expected.metrics);
    assert_eq!(found.weights, expected.weights);
    assert_eq!(found.temperature, expected.temperature);
}

/// With one step in an epoch, the first epoch ends before the warm-up has changed anything.
#[test]
fn an_epoch_without_an_update_is_never_the_best() {
    let (base, task) = (espalier_testing::jobs::tiny_base(), task::Config::default());
    for seed in 0..5 {
        let request = serde_json::json!({"epochs": 4, "batch_size": 32, "seed": seed});
        let hyperparameters = serde_json::from_value(request).unwrap();
        let (spec, data) = espalier_testing::tasks::spec_and_data(&base, &task, lora(0.0), hyperparameters, 24);
        let trained = train_uninterrupted(&base, &spec, &data, 1);
        assert_eq!(trained.metrics["steps"], 4);
        assert!(trained.metrics["best_step"].as_u64().unwrap() >= 2, "{}", trained.metrics);
    }
}

#[test]
fn thread_count_does_not_change_the_bits() {
    let head = adapter::Config::Head(adapter::head::Config { dropout: 0.1 });
    let all = espalier_testing::tasks::all_tasks().into_iter().map(|task| (task, lora(0.1)));
    for (task, method) in all.chain([(task::Config::default(), head)]) {
        let base = espalier_testing::tasks::base_for_task(&task);
        let (spec, data) = espalier_testing::tasks::spec_and_data(&base, &task, method, hyperparameters(), 60);
        let spec = Spec { micro_batch_tokens: 32, ..spec };
        let one = train_uninterrupted(&base, &spec, &data, 1);
        for threads in [2, 3, 4] {
            assert_equal(&train_uninterrupted(&base, &spec, &data, threads), &one);
        }
    }
}

/// Largest difference between the tensors of two runs, relative to the largest value of a tensor.
fn difference(one: &TrainingResult, other: &TrainingResult) -> f32 {
    let pairs = one.weights.iter().zip(&other.weights).flat_map(|((_, one), (_, other))| {
        let largest = one.values.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
        one.values.iter().zip(&other.values).map(move |(one, other)| (one - other).abs() / largest)
    });
    pairs.fold(0.0, f32::max)
}

#[test]
fn micro_batch_size_does_not_change_the_result() {
    for task in espalier_testing::tasks::all_tasks() {
        let base = espalier_testing::tasks::base_for_task(&task);
        let (spec, data) = espalier_testing::tasks::spec_and_data(&base, &task, lora(0.1), hyperparameters(), 60);
        let spec = Spec { micro_batch_tokens: 1 << 20, ..spec };
        let whole_batches = train_uninterrupted(&base, &spec, &data, 1);
        let split = train_uninterrupted(&base, &Spec { micro_batch_tokens: 64, ..spec }, &data, 2);
        let found = difference(&split, &whole_batches);
        assert!(found < 1e-3, "{task:?}: the weights differ by {found}");
    }
}

#[test]
fn contrastive_batch_over_the_activation_budget_is_recomputed() {
    let base = espalier_testing::tasks::bert_base();
    let ranking = serde_json::json!({"type": "embedding", "loss": "multiple_negatives_ranking"});
    let request = serde_json::json!({"epochs": 1, "batch_size": 1000, "seed": 5, "learning_rate": 0.01});
    let (task, request) = (serde_json::from_value(ranking).unwrap(), serde_json::from_value(request).unwrap());
    let (spec, data) = espalier_testing::tasks::spec_and_data(&base, &task, lora(0.1), request, 1000);
    let one = train_uninterrupted(&base, &Spec { micro_batch_tokens: 1 << 20, ..spec.clone() }, &data, 1);
    let twice = train_uninterrupted(&base, &Spec { micro_batch_tokens: 2048, ..spec }, &data, 2);
    let found = difference(&twice, &one);
    assert!(found < 1e-3, "the weights differ by {found}");
}

/// Stops the run after a number of reports: like a killed process, which saves nothing, or like a shutdown, which saves a checkpoint.
fn train_until_stopped(
    base: &Arc<BaseModel>,
    spec: &Spec,
    data: &TrainingData,
    folder: &Path,
    after: usize,
    stop: StopReason,
) -> Option<TrainingResult> {
    let mut remaining_reports = after;
    let mut count_down = |_: &Progress| match remaining_reports {
        0 => ControlFlow::Break(stop),
        _ => {
            remaining_reports -= 1;
            ControlFlow::Continue(())
        }
    };
    let settings = settings(2, Duration::ZERO);
    match training::train(base, spec, data, &folders(folder), &settings, &mut count_down).unwrap() {
        Outcome::Finished(trained) => Some(*trained),
        Outcome::Stopped(_) => None,
    }
}

#[test]
fn interrupted_run_is_bit_identical() {
    assert_interrupted_equals_uninterrupted(Precision::F32);
}

#[test]
fn interrupted_run_in_int8_is_bit_identical() {
    assert_interrupted_equals_uninterrupted(Precision::Int8);
}

/// For every task, with two threads in the interrupted run and one in the other.
fn assert_interrupted_equals_uninterrupted(precision: Precision) {
    let of_all_tasks = espalier_testing::tasks::all_tasks()
        .into_iter()
        .zip([StopReason::LeaseLost, StopReason::Requeue].into_iter().cycle());
    let hyperparameters = || Hyperparameters { precision: Some(precision), ..hyperparameters() };
    for (task, stop) in of_all_tasks {
        let base = espalier_testing::tasks::base_for_task(&task);
        let (spec, data) = espalier_testing::tasks::spec_and_data(&base, &task, lora(0.1), hyperparameters(), 60);
        let expected = train_uninterrupted(&base, &spec, &data, 1);
        let folder = tempfile::tempdir().unwrap();
        let mut random = SeededRng::new(11, &["interruptions"]);
        let mut attempts = 0;
        let found = loop {
            attempts += 1;
            let after = 1 + random.uniform_below(6);
            if let Some(trained) = train_until_stopped(&base, &spec, &data, folder.path(), after, stop) {
                break trained;
            }
            assert!(attempts < 100, "an attempt made no progress");
        };
        assert!(attempts > 3, "the run was not interrupted");
        assert_equal(&found, &expected);
    }
}

/// In the first and the last epoch the losses of both runs differ only by rounding; in the epochs between, the loss falls so steeply that
/// rounding shifts it more. The published weights differ.
#[test]
fn a_run_in_int8_is_close_to_one_in_f32() {
    for task in espalier_testing::tasks::all_tasks() {
        let base = espalier_testing::tasks::base_for_task(&task);
        let run = |precision| {
            let hyperparameters = Hyperparameters { precision: Some(precision), ..hyperparameters() };
            let (spec, data) = espalier_testing::tasks::spec_and_data(&base, &task, lora(0.0), hyperparameters, 60);
            train_uninterrupted(&base, &spec, &data, 2)
        };
        let [exact, rounded] = [Precision::F32, Precision::Int8].map(run);
        assert_ne!(exact.weights, rounded.weights, "{task:?}");
        let [exact, rounded] = [&exact, &rounded]
            .map(|run| -> Vec<f64> { rows(run, "train").map(|row| row.metrics["loss"].as_f64().unwrap()).collect() });
        assert_eq!(exact.len(), rounded.len());
        for epoch in [0, exact.len() - 1] {
            let [exact, rounded] = [exact[epoch], rounded[epoch]];
            assert!((exact - rounded).abs() <= 0.1 * exact.abs() + 0.02, "{task:?}: {rounded} instead of {exact}");
        }
    }
}

/// LoRA on the upper of two layers, LoRA on the pooler alone, and a head alone.
fn upper_methods() -> [adapter::Config; 3] {
    [
        serde_json::json!({"type": "lora", "layers": {"top": 1}, "dropout": 0.1}),
        serde_json::json!({"type": "lora", "target_modules": ["pooler"]}),
        serde_json::json!({"type": "head"}),
    ]
    .map(|method| serde_json::from_value(method).unwrap())
}

#[test]
fn cached_features_are_bit_identical() {
    let base = espalier_testing::jobs::tiny_base();
    for method in upper_methods() {
        let (mut spec, data) =
            espalier_testing::jobs::spec_and_data(&base, adapter::Config::default(), hyperparameters(), 60);
        spec.task = task::Config::default().with_pooling(Pooling::Cls);
        spec.method = method.resolve(&base, Pooling::Cls).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(2, Duration::from_secs(3600));
        let uncached = Settings { feature_cache_bytes: 1, ..settings.clone() };
        let computed = train_in(&base, &spec, &data, &uncached, &folders(&folder.path().join("uncached")));
        let written = train_in(&base, &spec, &data, &settings, &folders(folder.path()));
        let file_count = std::fs::read_dir(folder.path().join("features")).unwrap().count();
        assert!(file_count > 0, "no features are cached with {method:?}");
        std::fs::remove_dir_all(folder.path().join("job")).unwrap();
        let read = train_in(&base, &spec, &data, &settings, &folders(folder.path()));
        assert_eq!(
            std::fs::read_dir(folder.path().join("features")).unwrap().count(),
            file_count,
            "the cached features are not used"
        );
        assert_equal(&written, &computed);
        assert_equal(&read, &computed);
        let fresh = rows(&written, "validation").next().unwrap().metrics.clone();
        assert!(
            written.metrics_rows.iter().any(|row| row.split == "validation" && row.metrics != fresh),
            "the parameters did not change"
        );
    }
}

#[test]
fn training_does_not_change_the_base() {
    let base = espalier_testing::jobs::tiny_base();
    let before = base.weights_digest().unwrap();
    let (spec, data) = espalier_testing::jobs::spec_and_data(&base, lora(0.0), hyperparameters(), 30);
    train_uninterrupted(&base, &spec, &data, 2);
    assert_eq!(base.weights_digest().unwrap(), before);
}

#[test]
fn the_loss_decreases_on_separable_data_and_the_seed_changes_the_weights() {
    let base = espalier_testing::jobs::tiny_base();
    let (spec, data) = espalier_testing::jobs::spec_and_data(&base, lora(0.0), hyperparameters(), 90);
    let trained = train_uninterrupted(&base, &spec, &data, 2);
    let losses: Vec<f64> = rows(&trained, "train").map(|row| row.metrics["loss"].as_f64().unwrap()).collect();
    assert!(losses[losses.len() - 1] < losses[0] * 0.8, "{losses:?}");
    let mut other = spec.clone();
    other.hyperparameters.seed += 1;
    assert_ne!(train_uninterrupted(&base, &other, &data, 2).weights, trained.weights);
}

#[test]
fn early_stopping_ends_a_run_without_improvement_and_keeps_the_best_parameters() {
    let base = espalier_testing::jobs::tiny_base();
    let request = serde_json::json!({"epochs": 200, "batch_size": 16, "learning_rate": 0.05,
        "early_stopping": {"patience": 2, "metric": "accuracy"}});
    let hyperparameters = serde_json::from_value(request).unwrap();
    let (spec, data) = espalier_testing::jobs::spec_and_data(&base, lora(0.0), hyperparameters, 90);
    let trained = train_uninterrupted(&base, &spec, &data, 2);
    let evaluations: Vec<&MetricsRow> = rows(&trained, "validation").collect();
    assert!(evaluations.len() < 100, "the run was not stopped early");
    let accuracy = |row: &&MetricsRow| row.metrics["accuracy"].as_f64().unwrap();
    let best = evaluations.iter().map(accuracy).fold(0.0, f64::max);
    assert_eq!(trained.metrics["validation"]["accuracy"].as_f64().unwrap(), best);
}

fn rows<'a>(trained: &'a TrainingResult, split: &'a str) -> impl Iterator<Item = &'a MetricsRow> {
    trained.metrics_rows.iter().filter(move |row| row.split == split)
}

/// Trains until the first checkpoint of a step that no earlier attempt has reached, then ends like a killed process. Returns the step.
fn train_until_progress(base: &Arc<BaseModel>, spec: &Spec, data: &TrainingData, folder: &Path, before: u64) -> u64 {
    let (mut reached, mut is_first_report) = (before, true);
    let mut on_progress = |progress: &Progress| {
        if progress.has_new_checkpoint && is_first_report {
            is_first_report = false;
            assert!(
                before > 0 || progress.new_rows.is_empty(),
                "the first checkpoint comes before the first evaluation"
            );
        }
        match progress.has_new_checkpoint && progress.step > before {
            true => {
                reached = progress.step;
                ControlFlow::Break(StopReason::LeaseLost)
            }
            false => ControlFlow::Continue(()),
        }
    };
    let settings = settings(1, Duration::from_secs(3600));
    let outcome = training::train(base, spec, data, &folders(folder), &settings, &mut on_progress).unwrap();
    assert!(matches!(outcome, Outcome::Stopped(StopReason::LeaseLost)), "the run ended without a checkpoint");
    reached
}

#[test]
fn every_attempt_saves_a_checkpoint_soon_whatever_the_interval() {
    let base = espalier_testing::jobs::tiny_base();
    let request = serde_json::json!({"epochs": 100_000, "batch_size": 8});
    let hyperparameters = serde_json::from_value(request).unwrap();
    let (spec, data) = espalier_testing::jobs::spec_and_data(&base, lora(0.0), hyperparameters, 16);
    let (folder, started) = (tempfile::tempdir().unwrap(), std::time::Instant::now());
    let mut step = 0;
    for _ in 0..3 {
        step = train_until_progress(&base, &spec, &data, folder.path(), step);
    }
    assert!(started.elapsed() < Duration::from_secs(60), "three attempts took {:?}", started.elapsed());
}

#[test]
fn interrupted_feature_computation_is_continued() {
    let base = espalier_testing::jobs::tiny_base();
    let [_, _, head] = upper_methods();
    let (spec, data) = espalier_testing::jobs::spec_and_data(&base, head, hyperparameters(), 400);
    let spec = Spec { micro_batch_tokens: 8, ..spec };
    let expected = train_uninterrupted(&base, &spec, &data, 2);
    let reports_before_training = |folder: &Path, stop_after: usize| {
        let mut reports = 0;
        let mut on_progress = |progress: &Progress| {
            let has_started = progress.has_new_checkpoint || progress.total_steps > 0;
            reports += usize::from(!has_started);
            match has_started || reports >= stop_after {
                true => ControlFlow::Break(StopReason::LeaseLost),
                false => ControlFlow::Continue(()),
            }
        };
        let settings = settings(2, Duration::from_secs(3600));
        training::train(&base, &spec, &data, &folders(folder), &settings, &mut on_progress).unwrap();
        reports
    };
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = reports_before_training(folder.path(), usize::MAX);
    let folder = tempfile::tempdir().unwrap();
    // Each attempt ends shortly before the features are complete.
    assert_eq!(reports_before_training(folder.path(), undisturbed - 2), undisturbed - 2);
    let continued = reports_before_training(folder.path(), usize::MAX);
    assert!(continued + 10 < undisturbed, "{continued} reports of {undisturbed}");
    std::fs::remove_dir_all(folder.path().join("job")).unwrap();
    let found = train_in(&base, &spec, &data, &settings(2, Duration::from_secs(3600)), &folders(folder.path()));
    assert_equal(&found, &expected);
}
