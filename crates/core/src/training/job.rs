//! Inputs, settings and outcome of a training job.

use super::progress::{Interrupted, MetricsRow, StopReason};
use super::source_weights::SourceWeights;
use crate::error::Result;
use crate::task::{Example, Thresholds};
use espalier_tensor::Tensor;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the machine. They never affect the resulting bytes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Micro-batches computed in parallel.
    pub threads: usize,
    /// Longest time between checkpoints. The first checkpoint of a run is written at step 0, and the intervals of an attempt grow from
    /// half a second to this one.
    pub checkpoint_interval: Duration,
    /// Disk space of the feature cache.
    pub feature_cache_bytes: u64,
    /// Approximate memory of the activations that all threads save for their backward passes.
    pub activation_memory_bytes: u64,
}

/// Folders that a run writes to.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Checkpoints of this run.
    pub checkpoints: PathBuf,
    /// Feature cache, shared by all runs on this machine.
    pub feature_cache: PathBuf,
}

/// Examples of a job.
#[derive(Debug, Clone)]
pub struct TrainingData {
    pub examples: Vec<Example>,
    /// `None` where the validation split is drawn from `examples`.
    pub validation: Option<Vec<Example>>,
    /// Weights of the adapter that a job with `from_adapter` starts from.
    pub source_weights: Option<SourceWeights>,
}

/// Result of a finished run.
#[derive(Debug, Clone)]
pub struct TrainingResult {
    /// Adapter and head tensors of the best checkpoint, by name.
    pub weights: BTreeMap<String, Tensor>,
    /// Divides the logits before the softmax; fitted to the validation split, 1 without one.
    pub temperature: f32,
    /// Thresholds of labels that the validation split suggests; empty without any.
    pub thresholds: Thresholds,
    /// `{"validation": {...}, "best_epoch": ..}`: a function of data, spec and seed alone.
    pub metrics: Value,
    /// Further results on the validation split, for the job alone: `{"calibration_bins": [...], "example_lines": [...]}`; empty without
    /// classes. They are no part of the adapter, whose version they would change.
    pub validation_details: Map<String, Value>,
    /// All metrics rows of the run, in order.
    pub metrics_rows: Vec<MetricsRow>,
    /// Examples for the adapter's probe.
    pub probe_examples: Vec<Example>,
    /// Winner and table of a successive halving job.
    pub successive_halving: Option<HalvingResult>,
}

/// Result of successive halving.
#[derive(Debug, Clone, PartialEq)]
pub struct HalvingResult {
    /// Index of the best candidate.
    pub winner: usize,
    /// One row per candidate and rung: examples seen, metrics, and whether the candidate was dropped.
    pub table: Value,
}

/// Outcome of a run.
#[derive(Debug)]
pub enum Outcome {
    Finished(Box<TrainingResult>),
    /// Stopped by the progress callback.
    Stopped(StopReason),
}

impl Outcome {
    /// Outcome of a run whose state `save` writes to disk if another attempt will resume it.
    pub(super) fn new(result: Result<TrainingResult, Interrupted>, save: impl FnOnce() -> Result<()>) -> Result<Self> {
        match result {
            Ok(result) => Ok(Self::Finished(Box::new(result))),
            Err(Interrupted::Error(error)) => Err(error),
            Err(Interrupted::Stop(reason)) => {
                match reason {
                    StopReason::Pause | StopReason::Requeue | StopReason::Preempt => save()?,
                    StopReason::Cancel | StopReason::LeaseLost => {}
                }
                Ok(Self::Stopped(reason))
            }
        }
    }
}
