//! A race ends with the adapter that the winner's own job would have made, to the bit, whatever happens on the way.

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
        panic!("it is a race")
    };
    auto
}

fn request() -> Request {
    let given = json!({"epochs": 4, "batch_size": 8, "seed": 5});
    Request { hyperparameters: serde_json::from_value(given).unwrap(), ..Request::default() }
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

/// Of every family, some with settings of their own; one that cannot win.
fn candidates() -> Value {
    json!([
        {"type": "lora", "dropout": 0.1, "hyperparameters": {"learning_rate": 0.01}},
        {"type": "head"},
        {"type": "prompt_tuning", "num_virtual_tokens": 4},
        {"type": "lora", "layers": {"top": 1}, "hyperparameters": {"learning_rate": 0.02, "schedule": "cosine"}},
        {"type": "bias", "hyperparameters": {"learning_rate": 1e-7}},
    ])
}

fn race_and_data(base: &BaseModel, count: usize) -> (SuccessiveHalvingSpec, TrainingData) {
    let examples = espalier_testing::jobs::examples(count);
    let race = resolved(base, &auto(candidates()), &request(), &examples).unwrap();
    (race, TrainingData { examples, validation: None, source_weights: None })
}

fn attempt(
    base: &Arc<BaseModel>,
    plan: &Plan,
    data: &TrainingData,
    folder: &Path,
    (threads, every): (usize, Duration),
    report: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
) -> Option<TrainingResult> {
    let folders = Dirs { checkpoints: folder.join("job"), feature_cache: folder.join("remembered") };
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
    let mut go_on = |_: &Progress| ControlFlow::Continue(());
    attempt(base, plan, data, folder.path(), (2, Duration::from_secs(3600)), &mut go_on).expect("nobody asked to stop")
}

fn plan(race: &SuccessiveHalvingSpec) -> Plan {
    Plan::SuccessiveHalving(Box::new(race.clone()))
}

#[test]
fn winner_is_bit_identical_to_its_single_job() {
    let base = espalier_testing::jobs::tiny_base();
    let (race, data) = race_and_data(&base, 60);
    let found = run_uninterrupted(&base, &plan(&race), &data);
    let finish = found.successive_halving.clone().unwrap();
    let spec = plan(&race).resolved_spec(&found);
    // as a user would ask for it: the method, and the hyperparameters that the race shows
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
        assert_eq!(dropped(candidate).count(), 1, "candidate {candidate} is dropped once");
    }
    assert_eq!(dropped(finish.winner).count(), 0);
    let figures = |rung: u64, dropped: bool| {
        let some = table.iter().filter(move |row| row["rung"] == rung && row["dropped"] == dropped);
        some.map(|row| row["accuracy"].as_f64().unwrap())
    };
    for rung in 1..=3 {
        let worst = figures(rung, false).fold(f64::INFINITY, f64::min);
        assert!(figures(rung, true).all(|figure| figure <= worst), "{table:#?}");
        let seen: Vec<&Value> = table.iter().filter(|row| row["rung"] == rung).map(|row| &row["examples"]).collect();
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "all have seen as many: {seen:?}");
    }
    assert_eq!(table.last().unwrap()["examples"], json!(4 * 54), "the last two see a full run");
}

#[test]
fn diverging_candidate_is_eliminated() {
    let base = espalier_testing::jobs::tiny_base();
    for (index, method) in
        [json!({"type": "ia3"}), json!({"type": "prefix_tuning", "num_virtual_tokens": 3})].into_iter().enumerate()
    {
        let wild = json!({"type": "lora", "alpha": 3e38, "hyperparameters": {"learning_rate": 1.0}});
        let mut all = vec![wild, json!({"type": "bias", "hyperparameters": {"learning_rate": 1e-9}})];
        all.insert(index, method);
        let examples = espalier_testing::jobs::examples(60);
        let asked = Request {
            hyperparameters: serde_json::from_value(json!({"epochs": 6, "batch_size": 8})).unwrap(),
            ..request()
        };
        let race = resolved(&base, &auto(json!(all)), &asked, &examples).unwrap();
        let data = TrainingData { examples, validation: None, source_weights: None };
        let found = run_uninterrupted(&base, &plan(&race), &data);
        let table = &found.successive_halving.as_ref().unwrap().table["table"];
        let wild = table.as_array().unwrap().iter().find(|row| row["candidate"] == 1 - index).unwrap();
        assert_eq!((&wild["accuracy"], &wild["loss"], &wild["dropped"]), (&Value::Null, &Value::Null, &json!(true)));
        let spec = plan(&race).resolved_spec(&found);
        assert_eq!(found.weights, run_uninterrupted(&base, &spec.into(), &data).weights);
    }
}

#[test]
fn interrupted_race_is_bit_identical_and_progress_is_monotonic() {
    let base = espalier_testing::jobs::tiny_base();
    let (race, data) = race_and_data(&base, 60);
    let expected = run_uninterrupted(&base, &plan(&race), &data);
    for stop in [StopReason::LeaseLost, StopReason::Requeue] {
        let folder = tempfile::tempdir().unwrap();
        let mut random = SeededRng::new(13, &["interruptions"]);
        let (mut attempts, mut furthest) = (0, 0);
        let found = loop {
            attempts += 1;
            let mut left = 9 + random.uniform_below(8);
            let mut last = 0;
            let mut count_down = |said: &Progress| {
                if said.total_steps > 0 {
                    assert!(said.step >= last && said.step <= said.total_steps, "{said:?} after {last}");
                    (last, furthest) = (said.step, furthest.max(said.step));
                }
                left = left.saturating_sub(1);
                if left == 0 { ControlFlow::Break(stop) } else { ControlFlow::Continue(()) }
            };
            let threads = 1 + attempts % 3;
            if let Some(trained) =
                attempt(&base, &plan(&race), &data, folder.path(), (threads, Duration::ZERO), &mut count_down)
            {
                break trained;
            }
            assert!(attempts < 200, "every attempt gets at least a step further than {furthest}");
        };
        assert!(attempts > 4, "the race was really interrupted");
        assert_eq!(
            (found.weights, found.metrics_rows, found.successive_halving),
            (expected.weights.clone(), expected.metrics_rows.clone(), expected.successive_halving.clone())
        );
    }
}

#[test]
fn steps_are_counted_to_the_last_one_of_the_race() {
    let base = espalier_testing::jobs::tiny_base();
    let (race, data) = race_and_data(&base, 60);
    let (folder, mut steps, mut totals) = (tempfile::tempdir().unwrap(), Vec::new(), Vec::new());
    let mut listen = |said: &Progress| {
        if said.total_steps > 0 {
            steps.push(said.step);
            totals.push(said.total_steps);
        }
        ControlFlow::Continue(())
    };
    attempt(&base, &plan(&race), &data, folder.path(), (2, Duration::ZERO), &mut listen).unwrap();
    steps.dedup();
    totals.dedup();
    // 54 of 60 examples by 8 are 7 steps an epoch; the rungs of 28 steps are 7 and 14
    let total = 5 * 7 + 3 * 7 + 2 * 14;
    assert_eq!((totals, steps), (vec![total], (1..=total).collect::<Vec<u64>>()));
}

#[test]
fn candidates_with_the_same_first_trainable_layer_share_cached_features() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(60);
    let upper = |rank: u32| json!({"type": "lora", "rank": rank, "layers": {"top": 1}});
    let race = resolved(&base, &auto(json!([upper(1), upper(2), {"type": "head"}, upper(4)])), &request(), &examples);
    let data = TrainingData { examples, validation: None, source_weights: None };
    let folder = tempfile::tempdir().unwrap();
    let mut go_on = |_: &Progress| ControlFlow::Continue(());
    attempt(&base, &plan(&race.unwrap()), &data, folder.path(), (2, Duration::ZERO), &mut go_on).unwrap();
    let files = std::fs::read_dir(folder.path().join("remembered")).unwrap().count();
    assert_eq!(files, 2, "the rows of the upper layer, and the pooled ones");
}

#[test]
fn damaged_leaderboard_restarts_the_race() {
    let base = espalier_testing::jobs::tiny_base();
    let (race, data) = race_and_data(&base, 60);
    let expected = run_uninterrupted(&base, &plan(&race), &data);
    let folder = tempfile::tempdir().unwrap();
    let mut decided = |said: &Progress| {
        if said.step > 40 { ControlFlow::Break(StopReason::LeaseLost) } else { ControlFlow::Continue(()) }
    };
    let limits = (2, Duration::ZERO);
    assert!(attempt(&base, &plan(&race), &data, folder.path(), limits, &mut decided).is_none());
    let ledger = folder.path().join("job/race.json");
    let text = std::fs::read_to_string(&ledger).unwrap();
    assert!(text.contains("\"dropped\":true"), "a rung was decided: {text}");
    std::fs::write(&ledger, &text[..text.len() - 3]).unwrap();
    let mut go_on = |_: &Progress| ControlFlow::Continue(());
    let found = attempt(&base, &plan(&race), &data, folder.path(), limits, &mut go_on).unwrap();
    assert_eq!(
        (found.weights, found.metrics_rows, found.successive_halving),
        (expected.weights, expected.metrics_rows, expected.successive_halving)
    );
}

#[test]
fn defaults_are_resolved_and_stored() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(60);
    let race = resolved(&base, &Auto::default(), &Request::default(), &examples).unwrap();
    let methods: Vec<&str> = race.method.candidates.iter().map(|candidate| candidate.method.name()).collect();
    assert_eq!(methods, ["head", "lora", "lora", "ia3", "bottleneck", "bias", "vera", "prefix_tuning"]);
    let rates: Vec<f64> = race.method.candidates.iter().map(|one| one.hyperparameters.learning_rate).collect();
    assert_eq!(rates, [1e-3, 1e-3, 5e-4, 3e-3, 3e-3, 3e-3, 3e-3, 3e-3]);
    // 30 epochs of 54 examples, a quarter of them before the first rung
    assert_eq!((race.shared_hyperparameters().epochs, race.method.budget.first_rung), (Some(30), 30 * 54 / 4));
    let length = race.shared_hyperparameters().max_length;
    assert!(race.method.candidates.iter().all(|one| Some(one.hyperparameters.max_length) == length));
    let stored = json!(plan(&race));
    assert_eq!(stored["method"]["type"], "auto");
    assert_eq!(serde_json::from_value::<Plan>(stored).unwrap(), plan(&race));
    let alone: Plan = race.candidate_spec(1).into();
    assert_eq!(serde_json::from_value::<Plan>(json!(alone)).unwrap(), alone);
}

#[test]
fn invalid_race_is_rejected_at_its_field() {
    let base = espalier_testing::jobs::tiny_base();
    let examples = espalier_testing::jobs::examples(60);
    let two = || vec![json!({"type": "head"}), json!({"type": "lora"})];
    let with = |third: Value| json!([two(), vec![third]].concat());
    let first_rung = |first_rung: u64| {
        let method = json!({"type": "auto", "candidates": two(), "budget": {"first_rung": first_rung}});
        let Method::Auto(auto) = serde_json::from_value(method).unwrap() else { panic!("it is a race") };
        auto
    };
    let no_validation = Request { validation: Some(training::Validation::Fraction(0.0)), ..request() };
    let fast = Request { hyperparameters: serde_json::from_value(json!({"epochs": 0})).unwrap(), ..Request::default() };
    for (auto, request, places, word) in [
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
        let Err(Error::Invalid(problem)) = resolved(&base, &auto, &request, &examples) else { panic!("{places}") };
        let found: Vec<String> =
            problem.errors.iter().map(|fault| json!(fault)["pointer"].as_str().unwrap().to_string()).collect();
        assert_eq!((problem.code, found.join(" ").as_str()), ("invalid_job", places), "{}", problem.detail);
        assert!(problem.detail.contains(word), "{}", problem.detail);
    }
}

/// The usual candidates are those that make sense: an embedding has no head to be trained alone.
#[test]
fn a_race_of_the_usual_candidates_is_run_for_every_task() {
    let usual: Auto = serde_json::from_value(json!({"type": "auto"})).unwrap();
    for task in espalier_testing::tasks::all_tasks() {
        let base = espalier_testing::tasks::base_for_task(&task);
        let examples = espalier_testing::tasks::examples(&task, 60);
        let labels: Vec<String> = examples.iter().flat_map(|example| example.target.labels().to_vec()).collect();
        let request = Request { task: Some(task.clone()), ..request() };
        let race =
            SuccessiveHalvingSpec::resolve(&usual, &request, &labels, examples.len(), &base, MAX_CANDIDATES).unwrap();
        assert_eq!(race.method.candidates.len(), 8, "{task:?}");
        let data = TrainingData { examples, validation: None, source_weights: None };
        let found = run_uninterrupted(&base, &plan(&race), &data);
        let own = run_uninterrupted(&base, &Plan::from(plan(&race).resolved_spec(&found)), &data);
        assert_eq!((&found.weights, &found.temperature), (&own.weights, &own.temperature), "{task:?}");
    }
}
