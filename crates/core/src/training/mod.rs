//! The loop: dataset order, schedule, optimiser, checkpoint. Plain blocking functions; no async, no SQL, no HTTP.

pub mod batching;
pub mod checkpoint;
pub mod compatibility;
mod feature_cache;
mod feature_store;
mod gradient_accumulation;
mod head_init;
pub mod hyperparameters;
mod job_context;
mod lm_labels;
pub mod metrics_report;
pub mod network;
pub mod optimizer;
mod packing;
mod parallel_forward;
pub mod plan;
pub mod progress;
mod progress_reporter;
pub mod samples;
pub mod spec;
pub mod successive_halving;
mod tokenized_dataset;
mod trainer;
pub mod warm_start;

pub use hyperparameters::{EarlyStopping, Hyperparameters, Schedule};
pub use plan::Plan;
pub use progress::{MetricsRow, Progress, StopReason};
pub use samples::Samples;
pub use spec::{Spec, Validation};
pub use successive_halving::{Method, SuccessiveHalvingSpec};
pub use warm_start::FromAdapter;

use crate::adapter::TensorSet;
use crate::error::{Context, Result};
use crate::model::BaseModel;
use crate::task::Example;
use espalier_tensor::Tensor;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpoint::CheckpointDir;
use job_context::JobContext;
use progress_reporter::ProgressReporter;
use serde_json::json;
use tokenized_dataset::TokenizedDataset;
use trainer::{Interrupted, Trainer};

/// What a machine decides and what never affects bytes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Micro-batches computed at once.
    pub threads: usize,
    /// Time between checkpoints (one is always written at step 0).
    pub checkpoint_interval: Duration,
    /// Disk for what the frozen base computed of datasets.
    pub feature_cache_bytes: u64,
    /// Memory for what all threads remember of their way back, about.
    pub activation_memory_bytes: u64,
}

/// Where a run keeps what it writes.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Of this run alone.
    pub checkpoints: PathBuf,
    /// Of all runs on this machine: what the frozen base computed of datasets.
    pub feature_cache: PathBuf,
}

/// The examples of a job. `validation` is `None` where the split is to be drawn from `examples`.
#[derive(Debug, Clone)]
pub struct TrainingData {
    pub examples: Vec<Example>,
    pub validation: Option<Vec<Example>>,
    /// What a job with a `from_adapter` starts from.
    pub source_weights: Option<warm_start::SourceWeights>,
}

/// What a finished run leaves.
#[derive(Debug, Clone)]
pub struct TrainingResult {
    /// Adapter and head tensors by our names, of the best checkpoint.
    pub weights: BTreeMap<String, Tensor>,
    /// Divides the logits before the softmax; fitted on the validation split, 1 without one.
    pub temperature: f32,
    /// `{"validation": {...}, "best_epoch": ..}`: a function of data, spec and seed alone.
    pub metrics: serde_json::Value,
    /// Every metrics row of the run, in order.
    pub metrics_rows: Vec<MetricsRow>,
    /// Inputs for the adapter's probe: a few examples of the dataset.
    pub probe_examples: Vec<Example>,
    /// Of a race: who won, and the table.
    pub successive_halving: Option<successive_halving::HalvingResult>,
}

#[derive(Debug)]
pub enum Outcome {
    Finished(Box<TrainingResult>),
    /// The report asked to stop; a checkpoint of the last step is on disk.
    Stopped(StopReason),
}

/// Trains to the end, or until `report` says stop. Resumes from the newest checkpoint that verifies.
///
/// # Errors
/// `Invalid` where data and spec do not fit each other; `Internal` for the device and the disk.
pub fn train(
    base: &Arc<BaseModel>,
    spec: &Spec,
    data: &TrainingData,
    dirs: &Dirs,
    settings: &Settings,
    on_progress: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
) -> Result<Outcome> {
    let spec_json = serde_json::to_vec(spec).context("writing the specification down")?;
    let checkpoint_dir = CheckpointDir::new(dirs.checkpoints.clone(), &spec_json)?;
    let mut reporter = ProgressReporter::new(on_progress);
    let context = JobContext::new(base, settings, &dirs.feature_cache)?;
    let trainer = TokenizedDataset::new(base, spec, data, &mut reporter).and_then(|prepared| {
        Trainer::resume_or_start(&context, spec, prepared, data.source_weights.as_ref(), &checkpoint_dir, &mut reporter)
    });
    let mut trainer = match trainer {
        Ok(run) => run,
        Err(Interrupted::Stop(stop)) => return Ok(Outcome::Stopped(stop)),
        Err(Interrupted::Error(error)) => return Err(error),
    };
    let result = match trainer.train_until(u64::MAX, &checkpoint_dir, settings, &mut reporter) {
        Ok(()) => build_result(base, &trainer, &mut reporter),
        Err(halt) => Err(halt),
    };
    match result {
        Ok(trained) => Ok(Outcome::Finished(Box::new(trained))),
        Err(Interrupted::Error(error)) => Err(error),
        Err(Interrupted::Stop(stop)) => {
            if matches!(stop, StopReason::Pause | StopReason::Requeue) {
                checkpoint_dir.save(&trainer.state, &trainer.parameter_names)?;
            }
            Ok(Outcome::Stopped(stop))
        }
    }
}

/// The best parameters, calibrated and measured on the validation split.
fn build_result(
    base: &BaseModel,
    trainer: &Trainer,
    reporter: &mut ProgressReporter,
) -> Result<TrainingResult, Interrupted> {
    let counters = &trainer.state.trainer_state;
    reporter.queue_new_rows(counters);
    let best_parameters = trainer.state.best.as_ref().unwrap_or(&trainer.state.parameters);
    let steps_per_epoch = trainer.spec.hyperparameters.steps_per_epoch(trainer.dataset.training.len());
    let best_step = counters.best.as_ref().map_or(counters.step, |best| best.step);
    let mut metrics = json!({
        "steps": counters.step,
        "best_step": best_step,
        "best_epoch": best_step as f64 / steps_per_epoch as f64,
        "training_examples": trainer.dataset.training.len(),
    });
    let mut temperature = 1.0;
    if !trainer.dataset.validation.is_empty() {
        let evaluation = trainer.evaluate_parameters(best_parameters, reporter)?;
        temperature = evaluation.temperature();
        metrics["validation"] = evaluation.report(temperature);
    }
    reporter.check_stop()?;
    let pooling = trainer.spec.task.pooling().unwrap_or(base.info().default_pooling);
    let weights = trainer
        .parameter_names
        .iter()
        .cloned()
        .zip(best_parameters.iter().cloned())
        .chain(trainer.constants.clone())
        .collect();
    let weights = match trainer.spec.tensor_set() {
        TensorSet::Training => trainer.spec.method.inference_weights(base, pooling, weights)?,
        TensorSet::Inference => weights,
    };
    let weights = trainer.dataset.targets.denormalize_head(weights);
    Ok(TrainingResult {
        weights,
        temperature,
        metrics,
        metrics_rows: counters.metrics_rows.clone(),
        probe_examples: trainer.dataset.probe.clone(),
        successive_halving: None,
    })
}
