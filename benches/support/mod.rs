//! What the benchmarks of training share: the real base model, a CSV file's examples, a job on them.

#![allow(dead_code, reason = "each benchmark uses a part")]

use espalier_core::adapter;
use espalier_core::model::{BaseModel, Pooling};
use espalier_core::task::{self, Example, Target};
use espalier_core::training::spec::Request;
use espalier_core::training::{
    Dirs, Hyperparameters, Outcome, Progress, Settings, Spec, TrainingData, TrainingResult, Validation, train,
};
use espalier_tensor::Backend;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub type Outcomes<T> = Result<T, Box<dyn Error>>;

pub fn base(folder: &str, kernels: Arc<dyn Backend>) -> Outcomes<Arc<BaseModel>> {
    Ok(Arc::new(BaseModel::load(Path::new(folder), "base", kernels)?))
}

/// The columns `text` and `category`.
pub fn read(file: &str, repeats: usize) -> Outcomes<Vec<Example>> {
    let example = |(index, row): (usize, csv::Result<csv::StringRecord>)| {
        let row = row?;
        let text = format!("{} ", &row[0]).repeat(repeats);
        Ok(Example { line: index as u64 + 2, text, text_pair: None, target: Target::Label(row[1].to_string()) })
    };
    csv::Reader::from_path(file)?.records().enumerate().map(example).collect()
}

pub struct Job {
    pub method: adapter::Config,
    pub pooling: Pooling,
    pub hyperparameters: Hyperparameters,
    pub threads: usize,
}

/// Trains without a validation split, in a folder of its own.
pub fn run(
    base: &Arc<BaseModel>,
    job: Job,
    examples: Vec<Example>,
    report: &mut dyn FnMut(&Progress) -> ControlFlow<espalier_core::training::StopReason>,
) -> Outcomes<TrainingResult> {
    let label = |example: &Example| {
        let Target::Label(label) = &example.target else { panic!("a label was expected") };
        label.clone()
    };
    let labels: Vec<String> = examples.iter().map(label).collect();
    let request = Request {
        task: Some(task::Config::default().with_pooling(job.pooling)),
        method: Some(job.method),
        hyperparameters: job.hyperparameters,
        validation: Some(Validation::Fraction(0.0)),
        ..Request::default()
    };
    let spec = Spec::resolve(&request, &labels, examples.len(), base)?;
    let folder = tempfile::tempdir()?;
    let folders = Dirs { checkpoints: folder.path().join("run"), feature_cache: folder.path().join("remembered") };
    let settings = Settings {
        threads: job.threads,
        checkpoint_interval: Duration::from_secs(3600),
        feature_cache_bytes: 1 << 32,
        activation_memory_bytes: u64::MAX,
    };
    match train(
        base,
        &spec,
        &TrainingData { examples, validation: None, source_weights: None },
        &folders,
        &settings,
        report,
    )? {
        Outcome::Finished(trained) => Ok(*trained),
        Outcome::Stopped(_) => Err("the run was stopped".into()),
    }
}

#[allow(clippy::disallowed_macros, reason = "a benchmark speaks to whoever runs it")]
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// What was asked of the program, without what cargo adds.
pub fn arguments() -> Vec<String> {
    std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
