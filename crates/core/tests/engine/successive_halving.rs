//! Tests of successive halving: the result is bit-identical to the adapter of the winner's own job, also after interruptions.

use espalier_core::error::Error;
use espalier_core::model::BaseModel;
use espalier_core::task::Example;
use espalier_core::training::successive_halving::Auto;
use espalier_core::training::{
    self, Dirs, Hyperparameters, Method, Outcome, Plan, Progress, Settings, Spec, StopReason, SuccessiveHalvingSpec,
    TrainingData, TrainingResult, spec::Request,
};
use espalier_tensor::seeded_rng::SeededRng;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MAX_CANDIDATES: usize = 16;

fn auto(candidates: Value) -> Auto {
    let Method::Auto(auto) = serde_json::from_value(json!({"type": "auto", "candidates": candidates})).unwrap() else {
        panic!("successive halving was expected")
    };
    auto
}

fn request() -> Request {
    let hyperparameters = json!({"epochs": 4, "batch_size": 8, "seed": 5});
    Request { hyperparameters: serde_json::from_value(hyperparameters).unwrap(), ..Request::default() }
}

fn resolved(
    base: &BaseModel,
    auto: &Auto,
    request: &Request,
    examples: &[Example],
) -> Result<SuccessiveHalvingSpec, Error> {
    SuccessiveHalvingSpec::resolve(
        auto,
        request,
        &espalier_testing::jobs::labels(examples),
        examples.len(),
        base,
        MAX_CANDIDATES,
    )
}

/// Candidates of several families, some with their own hyperparameters, and one that cannot win.
fn candidates() -> Value {
    json!([
        {"type": "lora", "dropout": 0.1, "hyperparameters": {"learning_rate": 0.01}},
        {"type": "head"},
        {"type": "prompt_tuning", "num_virtual_tokens": 4},
        {"type": "lora", "layers": {"top": 1}, "hyperparameters": {"learning_rate": 0.02, "schedule": "cosine"}},
        {"type": "bias", "hyperparameters": {"learning_rate": 1e-7}},
    ])
}

fn spec_and_data(base: &BaseModel, count: usize) -> (SuccessiveHalvingSpec, TrainingData) {
    let examples = espalier_testing::jobs::examples(count);
    let spec = resolved(base, &auto(candidates()), &request(), &examples).unwrap();
    (spec, TrainingData { examples, validation: None, source_weights: None })
}

fn attempt(
    base: &Arc<BaseModel>,
    plan: &Plan,
    data: &TrainingData,
    folder: &Path,
    (threads, every): (usize, Duration),
    report: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
) -> Option<TrainingResult> {
    let folders = Dirs { checkpoints: folder.join("job"), feature_cache: folder.join("features") };
    let settings = Settings {
        threads,
        checkpoint_interval: every,
        feature_cache_bytes: 1 << 20,
        activation_memory_bytes: u64::MAX,
    };
    match plan.run(base, data, &folders, &settings, report).unwrap() {
        Outcome::Finished(trained) => Some(*trained),
        Outcome::Stopped(_) => None,
    }
}

fn run_uninterrupted(base: &Arc<BaseModel>, plan: &Plan, data: &TrainingData) -> TrainingResult {
    let folder = tempfile::tempdir().unwrap();
    let mut on_progress = |_: &Progress| ControlFlow::Continue(());
    attempt(base, plan, data, folder.path(), (2, Duration::from_secs(3600)), &mut on_progress).expect("the run stopped")
}

fn plan(spec: &SuccessiveHalvingSpec) -> Plan {
    Plan::SuccessiveHalving(Box::new(spec.clone()))
}

#[test]
fn winner_is_bit_identical_to_its_single_job() {
    let base = espalier_testing::jobs::tiny_base();
    let (spec, data) = spec_and_data(&base, 60);
    let found = run_uninterrupted(&base, &plan(&spec), &data);
    let finish = found.successive_halving.clone().unwrap();
    let spec = plan(&spec).resolved_spec(&found);
    // A request with the method and the hyperparameters that the job shows.
    let hyperparameters: Hyperparameters = serde_json::from_value(json!(spec.hyperparameters)).unwrap();
    let alone = Request { method: Some(spec.method.clone()), hyperparameters, ..Request::default() };
    let alone =
        Spec::resolve(&alone, &espalier_testing::jobs::labels(&data.examples), data.examples.len(), &base).unwrap();
    assert_eq!(alone, spec);
    let own = run_uninterrupted(&base, &alone.into(), &data);
    assert_eq!(found.weights, own.weights);
    assert_eq!(
        (found.temperature, &found.metrics, &found.probe_examples),
        (own.temperature, &own.metrics, &own.probe_examples)
    );
    let (rungs, rows): (Vec<_>, Vec<_>) = found.metrics_rows.iter().cloned().partition(|row| row.split == "race");
    assert_eq!((rows, rungs.len()), (own.metrics_rows, 3));

    let table = finish.table["table"].as_array().unwrap();
    assert_eq!((&finish.table["winner"], table.len()), (&json!(finish.winner), 5 + 3 + 2));
    let dropped =
        |candidate: usize| table.iter().filter(move |row| row["candidate"] == candidate && row["dropped"] == true);
    for candidate in (0..5).filter(|candidate| *candidate != finish.winner) {
        assert_eq!(dropped(candidate).count(), 1, "candidate {candidate} is not dropped exactly once");
    }
    assert_eq!(dropped(finish.winner).count(), 0);
    let accuracies = |rung: u64, dropped: bool| {
        let some = table.iter().filter(move |row| row["rung"] == rung && row["dropped"] == dropped);
        some.map(|row| row["accuracy"].as_f64().unwrap())
    };
    for rung in 1..=3 {
        let worst = accuracies(rung, false).fold(f64::INFINITY, f64::min);
        assert!(accuracies(rung, true).all(|accuracy| accuracy <= worst), "{table:#?}");
        let seen: Vec<&Value> = table.iter().filter(|row| row["rung"] == rung).map(|row| &row["examples"]).collect();
        assert!(
            seen.windows(2).all(|pair| pair[0] == pair[1]),
            "the candidates have seen different numbers of examples: {seen:?}"
        );
    }
    assert_eq!(table.last().unwrap()["examples"], json!(4 * 54), "the last two candidates train to the end");
}

#[test]
fn diverging_candidate_is_eliminated() {
    let base = espalier_testing::jobs::tiny_base();
    for (index, method) in
        [json!({"type": "ia3"}), json!({"type": "prefix_tuning", "num_virtual_tokens": 3})].into_iter().enumerate()
    {
        let diverging = json!({"type": "lora", "alpha": 3e38, "hyperparameters": {"learning_rate": 1.0}});
        let mut all = vec![diverging, json!({"type": "bias", "hyperparameters": {"learning_rate": 1e-9}})];
        all.insert(index, method);
        let examples = espalier_testing::jobs::examples(60);
        let request = Request {
            hyperparameters: serde_json::from_value(json!({"epochs": 6, "batch_size": 8})).unwrap(),
            ..request()
        };
        let spec = resolved(&base, &auto(json!(all)), &request, &examples).unwrap();
        let data = TrainingData { examples, validation: None, source_weights: None };
        let found = run_uninterrupted(&base, &plan(&spec), &data);
        let table = &found.successive_halving.as_ref().unwrap().table["table"];
        let diverging = table.as_array().unwrap().iter().find(|row| row["candidate"] == 1 - index).unwrap();
        assert_eq!(
            (&diverging["accuracy"], &diverging["loss"], &diverging["dropped"]),
            (&Value::Null, &Value::Null, &json!(true))
        );
        let spec = plan(&spec).resolved_spec(&found);
        assert_eq!(found.weights, run_uninterrupted(&base, &spec.into(), &data).weights);
    }
}

#[test]
fn interrupted_job_is_bit_identical_and_progress_is_monotonic() {
    let base = espalier_testing::jobs::tiny_base();
    let (spec, data) = spec_and_data(&base, 60);
    let expected = run_uninterrupted(&base, &plan(&spec), &data);
    for stop in [StopReason::LeaseLost, StopReason::Requeue] {
        let folder = tempfile::tempdir().unwrap();
        let mut random = SeededRng::new(13, &["interruptions"]);
        let (mut attempts, mut furthest) = (0, 0);
        let found = loop {
            attempts += 1;
            let mut left = 9 + random.uniform_below(8);
            let mut last = 0;
            let mut count_down = |progress: &Progress| {
                if progress.total_steps > 0 {
                    assert!(
                        progress.step >= last && progress.step <= progress.total_steps,
                        "{progress:?} after {last}"
                    );
                    (last, furthest) = (progress.step, furthest.max(progress.step));
                }
                left = left.saturating_sub(1);
                if left == 0 { ControlFlow::Break(stop) } else { ControlFlow::Continue(()) }
            };
            let threads = 1 + attempts % 3;
            if let Some(trained) =
                attempt(&base, &plan(&spec), &data, folder.path(), (threads, Duration::ZERO), &mut count_down)
            {
                break trained;
            }
            assert!(attempts < 200, "no attempt got further than step {furthest}");
        };
        assert!(attempts > 4, "the job was not interrupted");
        assert_eq!(
            (found.weights, found.metrics_rows, found.successive_halving),
            (expected.weights.clone(), expected.metrics_rows.clone(), expected.successive_halving.clone())
        );
    }
}

#[test]
fn steps_of_all_candidates_are_reported_in_order() {
    let base = espalier_testing::jobs::tiny_base();
    let (spec, data) = spec_and_data(&base, 60);
    let (folder, mut steps, mut totals) = (tempfile::tempdir().unwrap(), Vec::new(), Vec::new());
    let mut on_progress = |progress: &Progress| {
        if progress.total_steps > 0 {
            steps.push(progress.step);
            totals.push(progress.total_steps);
        }
        ControlFlow::Continue(())
    };
    attempt(&base, &plan(&spec), &data, folder.path(), (2, Duration::ZERO), &mut on_progress).unwrap();
    steps.dedup();
    totals.dedup();
    // 54 training examples in batches of 8 are 7 steps per epoch; the rungs of 28 steps are at 7 and 14.
    let total = 5 * 7 + 3 * 7 + 2 * 14;
    assert_eq!((totals, steps), (vec![total], (1..=total).collect::<Vec<u64>>()));
}

#[test]
fn candidates_with_the_same_first_trainable_layer_share_cached_features() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(60);
    let upper = |rank: u32| json!({"type": "lora", "rank": rank, "layers": {"top": 1}});
    let spec = resolved(&base, &auto(json!([upper(1), upper(2), {"type": "head"}, upper(4)])), &request(), &examples);
    let data = TrainingData { examples, validation: None, source_weights: None };
    let folder = tempfile::tempdir().unwrap();
    let mut on_progress = |_: &Progress| ControlFlow::Continue(());
    attempt(&base, &plan(&spec.unwrap()), &data, folder.path(), (2, Duration::ZERO), &mut on_progress).unwrap();
    let files = std::fs::read_dir(folder.path().join("features")).unwrap().count();
    assert_eq!(files, 2, "expected the inputs of the upper layer and of the head");
}

#[test]
fn a_damaged_leaderboard_restarts_the_job() {
    let base = espalier_testing::jobs::tiny_base();
    let (spec, data) = spec_and_data(&base, 60);
    let expected = run_uninterrupted(&base, &plan(&spec), &data);
    let folder = tempfile::tempdir().unwrap();
    let mut stop_after_a_rung = |progress: &Progress| {
        if progress.step > 40 { ControlFlow::Break(StopReason::LeaseLost) } else { ControlFlow::Continue(()) }
    };
    let limits = (2, Duration::ZERO);
    assert!(attempt(&base, &plan(&spec), &data, folder.path(), limits, &mut stop_after_a_rung).is_none());
    let leaderboard = folder.path().join("job/race.json");
    let text = std::fs::read_to_string(&leaderboard).unwrap();
    assert!(text.contains("\"dropped\":true"), "no rung is finished: {text}");
    std::fs::write(&leaderboard, &text[..text.len() - 3]).unwrap();
    let mut on_progress = |_: &Progress| ControlFlow::Continue(());
    let found = attempt(&base, &plan(&spec), &data, folder.path(), limits, &mut on_progress).unwrap();
    assert_eq!(
        (found.weights, found.metrics_rows, found.successive_halving),
        (expected.weights, expected.metrics_rows, expected.successive_halving)
    );
}

#[test]
fn defaults_are_resolved_and_stored() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(60);
    let spec = resolved(&base, &Auto::default(), &Request::default(), &examples).unwrap();
    let methods: Vec<&str> = spec.method.candidates.iter().map(|candidate| candidate.method.name()).collect();
    assert_eq!(methods, ["head", "lora", "lora", "ia3", "bottleneck", "bias", "vera", "prefix_tuning"]);
    let rates: Vec<f64> = spec.method.candidates.iter().map(|one| one.hyperparameters.learning_rate).collect();
    assert_eq!(rates, [1e-3, 1e-3, 5e-4, 3e-3, 3e-3, 3e-3, 3e-3, 3e-3]);
    // The full run has 75 epochs of 54 examples, which are 150 steps, and the first rung is at a quarter of it.
    assert_eq!((spec.shared_hyperparameters().epochs, spec.method.budget.first_rung), (Some(75), 75 * 54 / 4));
    let length = spec.shared_hyperparameters().max_length;
    assert!(spec.method.candidates.iter().all(|one| Some(one.hyperparameters.max_length) == length));
    let stored = json!(plan(&spec));
    assert_eq!(stored["method"]["type"], "auto");
    assert_eq!(serde_json::from_value::<Plan>(stored).unwrap(), plan(&spec));
    let alone: Plan = spec.candidate_spec(1).into();
    assert_eq!(serde_json::from_value::<Plan>(json!(alone)).unwrap(), alone);
}

#[test]
fn an_invalid_request_is_rejected_at_its_field() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(60);
    let two = || vec![json!({"type": "head"}), json!({"type": "lora"})];
    let with = |third: Value| json!([two(), vec![third]].concat());
    let first_rung = |first_rung: u64| {
        let method = json!({"type": "auto", "candidates": two(), "budget": {"first_rung": first_rung}});
        let Method::Auto(auto) = serde_json::from_value(method).unwrap() else {
            panic!("successive halving was expected")
        };
        auto
    };
    let no_validation = Request { validation: Some(training::Validation::Fraction(0.0)), ..request() };
    let fast = Request { hyperparameters: serde_json::from_value(json!({"epochs": 0})).unwrap(), ..Request::default() };
    for (auto, request, pointers, word) in [
        (auto(json!([])), request(), "/method/candidates", "2 to 16"),
        (auto(json!([{"type": "head"}])), request(), "/method/candidates", "2 to 16"),
        (auto(json!(vec![json!({"type": "head"}); 17])), request(), "/method/candidates", "not 17"),
        (auto(with(json!({"type": "lora", "rank": 1000}))), request(), "/method/candidates/2/rank", "between 1 and"),
        (
            auto(with(json!({"type": "ia3", "hyperparameters": {"learning_rate": 0}}))),
            request(),
            "/method/candidates/2/hyperparameters/learning_rate",
            "above 0",
        ),
        (auto(with(json!({"type": "lora"}))), request(), "/method/candidates/2", "same as candidate 1"),
        (auto(json!(two())), no_validation, "/validation/fraction", "validation"),
        (auto(json!(two())), fast, "/hyperparameters/epochs", "between 1"),
        (first_rung(7), request(), "/method/budget/first_rung", "between 8"),
        (first_rung(217), request(), "/method/budget/first_rung", "216"),
    ] {
        let Err(Error::Invalid(problem)) = resolved(&base, &auto, &request, &examples) else { panic!("{pointers}") };
        let found: Vec<String> =
            problem.errors.iter().map(|error| json!(error)["pointer"].as_str().unwrap().to_string()).collect();
        assert_eq!((problem.code, found.join(" ").as_str()), ("invalid_job", pointers), "{}", problem.detail);
        assert!(problem.detail.contains(word), "{}", problem.detail);
    }
}

/// Unsupported candidates are left out: an embedding has no head to train.
#[test]
fn the_default_candidates_run_for_every_task() {
    let auto: Auto = serde_json::from_value(json!({"type": "auto"})).unwrap();
    for task in espalier_testing::tasks::all_tasks() {
        let base = espalier_testing::tasks::base_for_task(&task);
        let examples = espalier_testing::tasks::examples(&task, 60);
        let labels: Vec<String> = examples.iter().flat_map(|example| example.target.labels().to_vec()).collect();
        let request = Request { task: Some(task.clone()), ..request() };
        let spec =
            SuccessiveHalvingSpec::resolve(&auto, &request, &labels, examples.len(), &base, MAX_CANDIDATES).unwrap();
        assert_eq!(spec.method.candidates.len(), 8, "{task:?}");
        let data = TrainingData { examples, validation: None, source_weights: None };
        let found = run_uninterrupted(&base, &plan(&spec), &data);
        let own = run_uninterrupted(&base, &Plan::from(plan(&spec).resolved_spec(&found)), &data);
        assert_eq!((&found.weights, &found.temperature), (&own.weights, &own.temperature), "{task:?}");
    }
}
