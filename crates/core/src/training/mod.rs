//! The loop: dataset order, schedule, optimiser, checkpoint. Plain blocking functions; no async, no SQL, no HTTP.

mod asked;
pub mod cells;
pub mod checkpoint;
pub mod evaluate;
mod frozen;
pub mod hyperparameters;
pub mod network;
pub mod optimizer;
pub mod order;
mod packing;
mod parts;
mod pieces;
pub mod plan;
mod prepare;
pub mod progress;
pub mod race;
mod remembered;
mod run;
pub mod samples;
mod shared;
mod speaker;
pub mod spec;
mod start;
pub mod warm_start;

pub use hyperparameters::{EarlyStopping, Hyperparameters, Schedule};
pub use plan::Plan;
pub use progress::{Progress, Row, Stop};
pub use race::{Method, Race};
pub use samples::Samples;
pub use spec::{Spec, Validation};
pub use warm_start::FromAdapter;

use crate::adapter::Form;
use crate::error::{Context, Result};
use crate::model::Base;
use crate::task::Example;
use espalier_tensor::Tensor;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpoint::Folder;
use prepare::Prepared;
use run::{Halt, Run};
use serde_json::json;
use shared::Shared;
use speaker::Speaker;

/// What a machine decides and what never affects bytes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Micro-batches computed at once.
    pub threads: usize,
    /// Time between checkpoints (one is always written at step 0).
    pub checkpoint_every: Duration,
    /// Disk for what the frozen base computed of datasets.
    pub remembered_bytes: u64,
    /// Memory for what all threads remember of their way back, about.
    pub activation_bytes: u64,
}

/// Where a run keeps what it writes.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Of this run alone.
    pub checkpoints: PathBuf,
    /// Of all runs on this machine: what the frozen base computed of datasets.
    pub remembered: PathBuf,
}

/// The examples of a job. `validation` is `None` where the split is to be drawn from `examples`.
#[derive(Debug, Clone)]
pub struct Data {
    pub examples: Vec<Example>,
    pub validation: Option<Vec<Example>>,
    /// What a job with a `from_adapter` starts from.
    pub source: Option<warm_start::Source>,
}

/// What a finished run leaves.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Adapter and head tensors by our names, of the best checkpoint.
    pub weights: BTreeMap<String, Tensor>,
    /// Divides the logits before the softmax; fitted on the validation split, 1 without one.
    pub temperature: f32,
    /// `{"validation": {...}, "best_epoch": ..}`: a function of data, spec and seed alone.
    pub metrics: serde_json::Value,
    /// Every metrics row of the run, in order.
    pub rows: Vec<Row>,
    /// Inputs for the adapter's probe: a few examples of the dataset.
    pub probe: Vec<Example>,
    /// Of a race: who won, and the table.
    pub race: Option<race::Finish>,
}

#[derive(Debug)]
pub enum Outcome {
    Finished(Box<Trained>),
    /// The report asked to stop; a checkpoint of the last step is on disk.
    Stopped(Stop),
}

/// Trains to the end, or until `report` says stop. Resumes from the newest checkpoint that verifies.
///
/// # Errors
/// `Invalid` where data and spec do not fit each other; `Internal` for the device and the disk.
pub fn train(
    base: &Arc<Base>,
    spec: &Spec,
    data: &Data,
    folders: &Folders,
    settings: &Settings,
    report: &mut dyn FnMut(&Progress) -> ControlFlow<Stop>,
) -> Result<Outcome> {
    let identity = serde_json::to_vec(spec).context("writing the specification down")?;
    let folder = Folder::new(folders.checkpoints.clone(), &identity)?;
    let mut speaker = Speaker::new(report);
    let shared = Shared::new(base, settings, &folders.remembered)?;
    let started = Prepared::new(base, spec, data, &mut speaker)
        .and_then(|prepared| Run::start(&shared, spec, prepared, data.source.as_ref(), &folder, &mut speaker));
    let mut run = match started {
        Ok(run) => run,
        Err(Halt::Stop(stop)) => return Ok(Outcome::Stopped(stop)),
        Err(Halt::Error(error)) => return Err(error),
    };
    let result = match run.go(u64::MAX, &folder, settings, &mut speaker) {
        Ok(()) => finish(base, &run, &mut speaker),
        Err(halt) => Err(halt),
    };
    match result {
        Ok(trained) => Ok(Outcome::Finished(Box::new(trained))),
        Err(Halt::Error(error)) => Err(error),
        Err(Halt::Stop(stop)) => {
            if matches!(stop, Stop::Pause | Stop::Release) {
                folder.save(&run.state, &run.names)?;
            }
            Ok(Outcome::Stopped(stop))
        }
    }
}

/// The best parameters, calibrated and measured on the validation split.
fn finish(base: &Base, run: &Run, speaker: &mut Speaker) -> Result<Trained, Halt> {
    let counters = &run.state.counters;
    speaker.rows(counters);
    let best = run.state.best.as_ref().unwrap_or(&run.state.parameters);
    let per_epoch = run.spec.hyperparameters.steps_per_epoch(run.prepared.training.len());
    let best_step = counters.best.as_ref().map_or(counters.step, |best| best.step);
    let mut metrics = json!({
        "steps": counters.step,
        "best_step": best_step,
        "best_epoch": best_step as f64 / per_epoch as f64,
        "training_examples": run.prepared.training.len(),
    });
    let mut temperature = 1.0;
    if !run.prepared.validation.is_empty() {
        let evaluated = run.evaluated(best, speaker)?;
        temperature = evaluated.temperature();
        metrics["validation"] = evaluated.report(temperature);
    }
    speaker.listen()?;
    let pooling = run.spec.task.pooling().unwrap_or(base.info().default_pooling);
    let weights = run.names.iter().cloned().zip(best.iter().cloned()).chain(run.constants.clone()).collect();
    let weights = match run.spec.form() {
        Form::Training => run.spec.method.published(base, pooling, weights)?,
        Form::Published => weights,
    };
    let weights = run.prepared.targets.in_units(weights);
    Ok(Trained {
        weights,
        temperature,
        metrics,
        rows: counters.rows.clone(),
        probe: run.prepared.probe.clone(),
        race: None,
    })
}
