//! What a job does, stored with it: one run, or a race of several.

use super::successive_halving::{self, SuccessiveHalvingSpec};
use super::{
    Dirs, FromAdapter, Outcome, Progress, Settings, Spec, StopReason, TrainingData, TrainingResult, Validation, train,
};
use crate::error::Result;
use crate::model::BaseModel;
use crate::task;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use utoipa::ToSchema;

/// Told apart by the method's type, which is `auto` for a race.
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
            Self::SuccessiveHalving(race) => &race.task,
            Self::Single(spec) => &spec.task,
        }
    }

    pub fn labels(&self) -> &[String] {
        match self {
            Self::SuccessiveHalving(race) => &race.labels,
            Self::Single(spec) => &spec.labels,
        }
    }

    pub fn validation(&self) -> &Validation {
        match self {
            Self::SuccessiveHalving(race) => &race.validation,
            Self::Single(spec) => &spec.validation,
        }
    }

    /// Tokens after which a text is cut.
    pub fn max_length(&self) -> u32 {
        match self {
            Self::SuccessiveHalving(race) => race.candidate_spec(0).hyperparameters.max_length,
            Self::Single(spec) => spec.hyperparameters.max_length,
        }
    }

    /// The base's fingerprint.
    pub fn base(&self) -> &str {
        match self {
            Self::SuccessiveHalving(race) => &race.base,
            Self::Single(spec) => &spec.base,
        }
    }

    pub fn kernels(&self) -> &str {
        match self {
            Self::SuccessiveHalving(race) => &race.kernels,
            Self::Single(spec) => &spec.kernels,
        }
    }

    /// The adapter that the job starts from.
    pub fn from_adapter(&self) -> Option<&FromAdapter> {
        match self {
            Self::SuccessiveHalving(_) => None,
            Self::Single(spec) => spec.from_adapter.as_ref(),
        }
    }

    /// The specification that an adapter was trained by: in a race, the winner's.
    pub fn resolved_spec(&self, result: &TrainingResult) -> Spec {
        match (self, &result.successive_halving) {
            (Self::SuccessiveHalving(race), Some(finish)) => race.candidate_spec(finish.winner),
            (Self::SuccessiveHalving(race), None) => race.candidate_spec(0),
            (Self::Single(spec), _) => spec.as_ref().clone(),
        }
    }

    /// Trains to the end, or until `report` says stop. Resumes from what is on disk.
    ///
    /// # Errors
    /// As [`train`] and [`race::run`].
    pub fn run(
        &self,
        base: &Arc<BaseModel>,
        data: &TrainingData,
        dirs: &Dirs,
        settings: &Settings,
        on_progress: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
    ) -> Result<Outcome> {
        match self {
            Self::SuccessiveHalving(race) => successive_halving::run(base, race, data, dirs, settings, on_progress),
            Self::Single(spec) => train(base, spec, data, dirs, settings, on_progress),
        }
    }
}
