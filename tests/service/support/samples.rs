//! Sample rows for tests of the store.

use espalier::store::{
    AdapterDescription, DEFAULT_OWNER, JobError, NewAdapter, NewDataset, NewJob, Platform, WorkerId,
};
use espalier_core::dataset::{Format, LabelCount, OnBadRows, Options, Report};
use espalier_core::training::hyperparameters::{DefaultsContext, ResolvedHyperparameters};
use espalier_core::training::warm_start::HeadReuse;
use espalier_core::training::{FromAdapter, Hyperparameters, MetricsRow, Progress, Spec, Validation};
use espalier_core::{adapter, task};
use serde_json::json;
use std::collections::BTreeMap;
use uuid::Uuid;

pub const OWNER: &str = DEFAULT_OWNER;
pub const OTHER_OWNER: &str = "another owner";

/// Returns a sha256 that begins with these hexadecimal digits.
pub fn sha256(digits: &str) -> String {
    format!("{digits:0<64}")
}

pub fn options() -> Options {
    Options {
        columns: BTreeMap::from([("label".to_string(), "category".to_string())]),
        on_bad_rows: OnBadRows::Skip,
        ..Options::new(Format::Csv)
    }
}

pub fn report() -> Report {
    Report {
        rows: 3,
        examples: 2,
        warning_counts: BTreeMap::from([("duplicate".to_string(), 1)]),
        labels: vec![LabelCount { label: "café \u{1f600}".to_string(), count: 2 }],
        ..Report::default()
    }
}

/// Returns a dataset whose hash begins with these digits.
pub fn new_dataset(digits: &str) -> NewDataset {
    NewDataset {
        owner: OWNER.to_string(),
        file_name: Some("intents.csv".to_string()),
        hash: sha256(digits),
        bytes: 1234,
        options: options(),
        report: report(),
        limits: Default::default(),
    }
}

pub fn spec() -> Spec {
    Spec {
        task: task::Config::default(),
        method: adapter::Config::default(),
        from_adapter: None,
        hyperparameters: hyperparameters(),
        validation: Validation::Fraction(0.1),
        selection_metric: None,
        samples: None,
        labels: vec!["café \u{1f600}".to_string(), "\"quoted\" \\ line\n".to_string()],
        micro_batch_tokens: 4096,
        kernels: "candle-cpu".to_string(),
        base: sha256("ba5e"),
    }
}

/// Platform of [`spec`].
pub fn platform() -> Platform {
    let spec = spec();
    Platform { base: spec.base, kernels: spec.kernels }
}

pub fn new_job(dataset: Uuid) -> NewJob {
    NewJob {
        id: Uuid::now_v7(),
        owner: OWNER.to_string(),
        name: Some("intents".to_string()),
        dataset_id: dataset,
        validation_dataset_id: None,
        options: options(),
        spec: spec().into(),
        metadata: [("team".to_string(), "support".to_string())].into(),
        created_by: Some("none".to_string()),
        trace_context: None,
        priority: 0,
    }
}

/// Returns a job that starts from the adapter version that begins with these digits.
pub fn new_job_from_adapter(dataset: Uuid, digits: &str) -> NewJob {
    let from = FromAdapter { version: sha256(digits), head: HeadReuse::Kept, note: None };
    NewJob { spec: Spec { from_adapter: Some(from), ..spec() }.into(), ..new_job(dataset) }
}

pub fn description(digits: &str) -> AdapterDescription {
    AdapterDescription {
        version: sha256(digits),
        task: task::Config::default(),
        method: adapter::Config::default(),
        labels: spec().labels,
        bytes: 98_765,
        max_length: Some(128),
        base_fingerprint: Some(sha256("ba5e")),
        base_verified: true,
        metrics: Some(json!({"validation": {"accuracy": 0.925}})),
        provenance: json!({"host": "here"}),
    }
}

/// Returns an adapter whose version begins with these digits.
pub fn new_adapter(name: Option<&str>, digits: &str) -> NewAdapter {
    NewAdapter {
        id: Uuid::now_v7(),
        owner: OWNER.to_string(),
        name: name.map(str::to_string),
        job_id: None,
        description: description(digits),
        max_owner_bytes: None,
    }
}

pub fn worker() -> WorkerId {
    WorkerId { instance_id: Uuid::now_v7(), process_id: Uuid::now_v7() }
}

pub fn progress(step: u64) -> Progress {
    Progress {
        step,
        total_steps: 939,
        epoch: 0.375,
        train_loss: 1.91,
        examples_per_second: 240.1,
        eta_seconds: 109.5,
        new_rows: Vec::new(),
        has_new_checkpoint: false,
        new_examples: 0,
    }
}

pub fn row(step: u64, split: &str) -> MetricsRow {
    MetricsRow { step, split: split.to_string(), metrics: json!({"loss": 1.0 / (step + 1) as f64}) }
}

pub fn job_error() -> JobError {
    JobError { code: "out_of_memory".to_string(), detail: "give a smaller batch_size".to_string() }
}

fn hyperparameters() -> ResolvedHyperparameters {
    // The seed fits neither a signed integer nor a 64-bit float; the learning rate has 17 significant digits.
    let requested =
        Hyperparameters { seed: Some(u64::MAX), learning_rate: Some(0.1 + 0.2), ..Hyperparameters::default() };
    let context = DefaultsContext {
        examples: 60,
        max_tokens: 128,
        learning_rate: 1e-3,
        min_steps: 1,
        metric_names: &["accuracy"],
        held_out_examples: None,
        task_defaults: task::Config::default().defaults(),
    };
    requested.resolve(context, &mut Vec::new())
}
