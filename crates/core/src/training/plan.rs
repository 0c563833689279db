//! Plan of a job, stored with it: one training run, or successive halving over several candidates.

use super::checkpoint::CheckpointDir;
use super::job::{Dirs, Outcome, Settings, TrainingData, TrainingResult};
use super::job_context::JobContext;
use super::progress::{Interrupted, Progress, ProgressReporter, StopReason};
use super::spec::{Spec, Validation};
use super::successive_halving::{self, SuccessiveHalvingSpec};
use super::tokenized_dataset::TokenizedDataset;
use super::trainer::Trainer;
use super::warm_start::FromAdapter;
use crate::error::{Context, Result};
use crate::model::BaseModel;
use crate::task;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use utoipa::ToSchema;

/// Plan of a job. The type of the method is `auto` for successive halving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Plan {
    SuccessiveHalving(Box<SuccessiveHalvingSpec>),
    Single(Box<Spec>),
}

impl From<Spec> for Plan {
    fn from(spec: Spec) -> Self {
        Self::Single(Box::new(spec))
    }
}

impl Plan {
    pub fn task(&self) -> &task::Config {
        match self {
            Self::SuccessiveHalving(halving) => &halving.task,
            Self::Single(spec) => &spec.task,
        }
    }

    pub fn labels(&self) -> &[String] {
        match self {
            Self::SuccessiveHalving(halving) => &halving.labels,
            Self::Single(spec) => &spec.labels,
        }
    }

    pub fn validation(&self) -> &Validation {
        match self {
            Self::SuccessiveHalving(halving) => &halving.validation,
            Self::Single(spec) => &spec.validation,
        }
    }

    /// Length in tokens to which sequences are truncated.
    pub fn max_length(&self) -> u32 {
        match self {
            Self::SuccessiveHalving(halving) => halving.candidate_spec(0).hyperparameters.max_length,
            Self::Single(spec) => spec.hyperparameters.max_length,
        }
    }

    /// Fingerprint of the base.
    pub fn base(&self) -> &str {
        match self {
            Self::SuccessiveHalving(halving) => &halving.base,
            Self::Single(spec) => &spec.base,
        }
    }

    pub fn kernels(&self) -> &str {
        match self {
            Self::SuccessiveHalving(halving) => &halving.kernels,
            Self::Single(spec) => &spec.kernels,
        }
    }

    /// Adapter that the job starts from.
    pub fn from_adapter(&self) -> Option<&FromAdapter> {
        match self {
            Self::SuccessiveHalving(_) => None,
            Self::Single(spec) => spec.from_adapter.as_ref(),
        }
    }

    /// Specification of the resulting adapter: with successive halving, that of the winner.
    pub fn resolved_spec(&self, result: &TrainingResult) -> Spec {
        match (self, &result.successive_halving) {
            (Self::SuccessiveHalving(halving), Some(result)) => halving.candidate_spec(result.winner),
            (Self::SuccessiveHalving(halving), None) => halving.candidate_spec(0),
            (Self::Single(spec), _) => spec.as_ref().clone(),
        }
    }

    /// Trains to the end, or until `on_progress` stops the run. Resumes from the newest checkpoints on disk.
    ///
    /// # Errors
    /// As [`train`] and [`successive_halving::run`].
    pub fn run(
        &self,
        base: &Arc<BaseModel>,
        data: &TrainingData,
        dirs: &Dirs,
        settings: &Settings,
        on_progress: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
    ) -> Result<Outcome> {
        match self {
            Self::SuccessiveHalving(halving) => {
                successive_halving::run(base, halving, data, dirs, settings, on_progress)
            }
            Self::Single(spec) => train(base, spec, data, dirs, settings, on_progress),
        }
    }
}

/// Trains one adapter to the end, or until `on_progress` stops the run. Resumes from the newest checkpoint that verifies.
///
/// # Errors
/// `Invalid` where data and spec do not match or training diverges; `Internal` where the device or the disk fails.
pub fn train(
    base: &Arc<BaseModel>,
    spec: &Spec,
    data: &TrainingData,
    dirs: &Dirs,
    settings: &Settings,
    on_progress: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
) -> Result<Outcome> {
    let spec_json = serde_json::to_vec(spec).context("serializing the specification")?;
    let mut checkpoint_dir = CheckpointDir::new(dirs.checkpoints.clone(), &spec_json)?;
    let mut reporter = ProgressReporter::new(on_progress);
    let context = JobContext::new(base, settings, &dirs.feature_cache)?;
    let trainer = TokenizedDataset::new(base, spec, data, &mut reporter).and_then(|dataset| {
        Trainer::resume_or_start(
            &context,
            spec,
            dataset,
            data.source_weights.as_ref(),
            &mut checkpoint_dir,
            &mut reporter,
        )
    });
    let mut trainer = match trainer {
        Ok(trainer) => trainer,
        // Nothing has changed since the checkpoint on disk.
        Err(interrupted) => return Outcome::new(Err(interrupted), || Ok(())),
    };
    let result = trainer.train_until(u64::MAX, &mut checkpoint_dir, settings, &mut reporter);
    let result: Result<_, Interrupted> = result.and_then(|()| trainer.build_result(base, &mut reporter));
    Outcome::new(result, || checkpoint_dir.save(&trainer.state, &trainer.parameter_names))
}
