//! The loop: dataset order, schedule, optimiser, checkpoint. Plain blocking functions; no async, no SQL, no HTTP.

pub mod checkpoint;
pub mod hyperparameters;
pub mod progress;
pub mod spec;

pub use hyperparameters::{EarlyStopping, Hyperparameters, Schedule};
pub use progress::{Progress, Row, Stop};
pub use spec::{Spec, Validation};

use crate::compute::Tensor;
use crate::error::Result;
use crate::model::Base;
use crate::task::Example;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

/// What a machine decides and what never affects bytes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Micro-batches computed at once.
    pub threads: usize,
    /// Time between checkpoints (one is always written at step 0).
    pub checkpoint_every: Duration,
}

/// The examples of a job. `validation` is `None` where the split is to be drawn from `examples`.
#[derive(Debug, Clone)]
pub struct Data {
    pub examples: Vec<Example>,
    pub validation: Option<Vec<Example>>,
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
}

#[derive(Debug)]
pub enum Outcome {
    Finished(Box<Trained>),
    /// The report asked to stop; a checkpoint of the last step is on disk.
    Stopped(Stop),
}

/// Trains to the end, or until `report` says stop. Resumes from the newest checkpoint in `folder` that verifies.
///
/// # Errors
/// `Invalid` where data and spec do not fit each other; `Internal` for the device and the disk.
pub fn train(
    base: &Base,
    spec: &Spec,
    data: &Data,
    folder: PathBuf,
    settings: &Settings,
    report: &mut dyn FnMut(&Progress) -> ControlFlow<Stop>,
) -> Result<Outcome> {
    let _ = (base, spec, data, folder, settings, report);
    todo!("written by the training room")
}
