//! A run's bytes depend on data, specification and seed alone: not on threads, interruptions or the base's other users.

use espalier_core::adapter::{self, lora};
use espalier_core::model::{Base, Pooling};
use espalier_core::task;
use espalier_core::training::{
    self, Data, Folders, Hyperparameters, Outcome, Progress, Row, Settings, Spec, Stop, Trained,
};
use espalier_tensor::random::Random;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn hyperparameters() -> Hyperparameters {
    let given = serde_json::json!({"epochs": 3, "batch_size": 8, "seed": 5, "learning_rate": 0.01});
    serde_json::from_value(given).unwrap()
}

fn lora(dropout: f64) -> adapter::Config {
    adapter::Config::Lora(lora::Config { dropout, ..lora::Config::default() })
}

fn settings(threads: usize, checkpoint_every: Duration) -> Settings {
    Settings { threads, checkpoint_every, remembered_bytes: 1 << 20, activation_bytes: u64::MAX }
}

fn folders(folder: &Path) -> Folders {
    Folders { checkpoints: folder.join("job"), remembered: folder.join("remembered") }
}

fn whole(base: &Arc<Base>, spec: &Spec, data: &Data, threads: usize) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    in_folder(base, spec, data, &settings(threads, Duration::from_secs(3600)), &folders(folder.path()))
}

fn in_folder(base: &Arc<Base>, spec: &Spec, data: &Data, settings: &Settings, folders: &Folders) -> Trained {
    let mut go_on = |_: &Progress| ControlFlow::Continue(());
    match training::train(base, spec, data, folders, settings, &mut go_on).unwrap() {
        Outcome::Finished(trained) => *trained,
        Outcome::Stopped(stop) => panic!("nobody asked to stop, but {stop:?}"),
    }
}

fn assert_equal(found: &Trained, expected: &Trained) {
    assert_eq!(found.rows, expected.rows);
    assert_eq!(found.metrics, expected.metrics);
    assert_eq!(found.weights, expected.weights);
    assert_eq!(found.temperature, expected.temperature);
}

#[test]
fn threads_change_no_bit() {
    let head = adapter::Config::Head(adapter::head::Config { dropout: 0.1 });
    let all = espalier_testing::tasks::all().into_iter().map(|task| (task, lora(0.1)));
    for (task, method) in all.chain([(task::Config::default(), head)]) {
        let base = espalier_testing::tasks::base_for(&task);
        let (spec, data) = espalier_testing::tasks::job(&base, &task, method, hyperparameters(), 60);
        let spec = Spec { micro_batch_tokens: 32, ..spec };
        let one = whole(&base, &spec, &data, 1);
        for threads in [2, 3, 4] {
            assert_equal(&whole(&base, &spec, &data, threads), &one);
        }
    }
}

/// The largest difference of two runs' tensors, relative to the largest of their values.
fn difference(one: &Trained, other: &Trained) -> f32 {
    let pairs = one.weights.iter().zip(&other.weights).flat_map(|((_, one), (_, other))| {
        let largest = one.values.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
        one.values.iter().zip(&other.values).map(move |(one, other)| (one - other).abs() / largest)
    });
    pairs.fold(0.0, f32::max)
}

#[test]
fn micro_batches_of_any_size_teach_the_same() {
    for task in espalier_testing::tasks::all() {
        let base = espalier_testing::tasks::base_for(&task);
        let (spec, data) = espalier_testing::tasks::job(&base, &task, lora(0.1), hyperparameters(), 60);
        let spec = Spec { micro_batch_tokens: 1 << 20, ..spec };
        let whole_batches = whole(&base, &spec, &data, 1);
        let cut = whole(&base, &Spec { micro_batch_tokens: 64, ..spec }, &data, 2);
        let found = difference(&cut, &whole_batches);
        assert!(found < 1e-3, "{task:?}: the weights differ by {found}");
    }
}

#[test]
fn a_coupled_batch_too_large_to_be_remembered_is_computed_twice_and_teaches_the_same() {
    let base = espalier_testing::tasks::base();
    let ranking = serde_json::json!({"type": "embedding", "loss": "multiple_negatives_ranking"});
    let given = serde_json::json!({"epochs": 1, "batch_size": 1000, "seed": 5, "learning_rate": 0.01});
    let (task, given) = (serde_json::from_value(ranking).unwrap(), serde_json::from_value(given).unwrap());
    let (spec, data) = espalier_testing::tasks::job(&base, &task, lora(0.1), given, 1000);
    let one = whole(&base, &Spec { micro_batch_tokens: 1 << 20, ..spec.clone() }, &data, 1);
    let twice = whole(&base, &Spec { micro_batch_tokens: 2048, ..spec }, &data, 2);
    let found = difference(&twice, &one);
    assert!(found < 1e-3, "the weights differ by {found}");
}

/// Stops the run after a number of reports, in the way of a killed process (nothing is saved but what already was) or
/// of a shutdown (the last step is saved).
fn interrupted(base: &Arc<Base>, spec: &Spec, data: &Data, folder: &Path, after: usize, stop: Stop) -> Option<Trained> {
    let mut left = after;
    let mut count_down = |_: &Progress| match left {
        0 => ControlFlow::Break(stop),
        _ => {
            left -= 1;
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
fn a_run_interrupted_anywhere_ends_as_an_undisturbed_one() {
    let of_all_tasks =
        espalier_testing::tasks::all().into_iter().zip([Stop::Abandon, Stop::Release].into_iter().cycle());
    for (task, stop) in of_all_tasks {
        let base = espalier_testing::tasks::base_for(&task);
        let (spec, data) = espalier_testing::tasks::job(&base, &task, lora(0.1), hyperparameters(), 60);
        let expected = whole(&base, &spec, &data, 2);
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(11, &["interruptions"]);
        let mut attempts = 0;
        let found = loop {
            attempts += 1;
            let after = 1 + random.below(6);
            if let Some(trained) = interrupted(&base, &spec, &data, folder.path(), after, stop) {
                break trained;
            }
            assert!(attempts < 100, "every attempt gets at least one step further");
        };
        assert!(attempts > 3, "the run was really interrupted");
        assert_equal(&found, &expected);
    }
}

/// LoRA on the upper of two layers, on the pooler alone, and none at all.
fn upper_methods() -> [adapter::Config; 3] {
    [
        serde_json::json!({"type": "lora", "layers": {"top": 1}, "dropout": 0.1}),
        serde_json::json!({"type": "lora", "target_modules": ["pooler"]}),
        serde_json::json!({"type": "head"}),
    ]
    .map(|method| serde_json::from_value(method).unwrap())
}

#[test]
fn what_the_frozen_base_computed_gives_the_same_bits_read_or_computed() {
    let base = espalier_testing::jobs::tiny_base();
    for method in upper_methods() {
        let (mut spec, data) = espalier_testing::jobs::job(&base, adapter::Config::default(), hyperparameters(), 60);
        spec.task = task::Config::default().with_pooling(Pooling::Cls);
        spec.method = method.resolve(&base, Pooling::Cls).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(2, Duration::from_secs(3600));
        let forgetful = Settings { remembered_bytes: 1, ..settings.clone() };
        let computed = in_folder(&base, &spec, &data, &forgetful, &folders(&folder.path().join("forgetful")));
        let written = in_folder(&base, &spec, &data, &settings, &folders(folder.path()));
        let places = std::fs::read_dir(folder.path().join("remembered")).unwrap().count();
        assert!(places > 0, "something is remembered under {method:?}");
        std::fs::remove_dir_all(folder.path().join("job")).unwrap();
        let read = in_folder(&base, &spec, &data, &settings, &folders(folder.path()));
        assert_eq!(std::fs::read_dir(folder.path().join("remembered")).unwrap().count(), places, "and found again");
        assert_equal(&written, &computed);
        assert_equal(&read, &computed);
        let fresh = rows(&written, "validation").next().unwrap().metrics.clone();
        assert!(written.rows.iter().any(|row| row.split == "validation" && row.metrics != fresh), "it was trained");
    }
}

#[test]
fn training_leaves_the_base_as_it_was() {
    let base = espalier_testing::jobs::tiny_base();
    let before = base.digest().unwrap();
    let (spec, data) = espalier_testing::jobs::job(&base, lora(0.0), hyperparameters(), 30);
    whole(&base, &spec, &data, 2);
    assert_eq!(base.digest().unwrap(), before);
}

#[test]
fn the_loss_falls_on_separable_data_and_a_seed_decides_the_bytes() {
    let base = espalier_testing::jobs::tiny_base();
    let (spec, data) = espalier_testing::jobs::job(&base, lora(0.0), hyperparameters(), 90);
    let trained = whole(&base, &spec, &data, 2);
    let losses: Vec<f64> = rows(&trained, "train").map(|row| row.metrics["loss"].as_f64().unwrap()).collect();
    assert!(losses[losses.len() - 1] < losses[0] * 0.8, "{losses:?}");
    let mut other = spec.clone();
    other.hyperparameters.seed += 1;
    assert_ne!(whole(&base, &other, &data, 2).weights, trained.weights);
}

#[test]
fn early_stopping_ends_a_run_that_no_longer_improves_and_keeps_the_best() {
    let base = espalier_testing::jobs::tiny_base();
    let given = serde_json::json!({"epochs": 200, "batch_size": 16, "learning_rate": 0.05,
        "early_stopping": {"patience": 2, "metric": "accuracy"}});
    let hyperparameters = serde_json::from_value(given).unwrap();
    let (spec, data) = espalier_testing::jobs::job(&base, lora(0.0), hyperparameters, 90);
    let trained = whole(&base, &spec, &data, 2);
    let evaluations: Vec<&Row> = rows(&trained, "validation").collect();
    assert!(evaluations.len() < 100, "it stopped long before the end");
    let accuracy = |row: &&Row| row.metrics["accuracy"].as_f64().unwrap();
    let best = evaluations.iter().map(accuracy).fold(0.0, f64::max);
    assert_eq!(trained.metrics["validation"]["accuracy"].as_f64().unwrap(), best);
}

fn rows<'a>(trained: &'a Trained, split: &'a str) -> impl Iterator<Item = &'a Row> {
    trained.rows.iter().filter(move |row| row.split == split)
}
