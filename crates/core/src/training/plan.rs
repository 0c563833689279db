//! What a job does, stored with it: one run, or a race of several.

use super::race::{self, Race};
use super::{Data, Folders, FromAdapter, Outcome, Progress, Settings, Spec, Stop, Trained, Validation, train};
use crate::error::Result;
use crate::model::Base;
use crate::task;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use utoipa::ToSchema;

/// Told apart by the method's type, which is `auto` for a race.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Plan {
    Race(Box<Race>),
    Run(Box<Spec>),
}

impl From<Spec> for Plan {
    fn from(spec: Spec) -> Self {
        Self::Run(Box::new(spec))
    }
}

impl Plan {
    pub fn task(&self) -> &task::Config {
        match self {
            Self::Race(race) => &race.task,
            Self::Run(spec) => &spec.task,
        }
    }

    pub fn labels(&self) -> &[String] {
        match self {
            Self::Race(race) => &race.labels,
            Self::Run(spec) => &spec.labels,
        }
    }

    pub fn validation(&self) -> &Validation {
        match self {
            Self::Race(race) => &race.validation,
            Self::Run(spec) => &spec.validation,
        }
    }

    /// Tokens after which a text is cut.
    pub fn max_length(&self) -> u32 {
        match self {
            Self::Race(race) => race.spec(0).hyperparameters.max_length,
            Self::Run(spec) => spec.hyperparameters.max_length,
        }
    }

    /// The base's fingerprint.
    pub fn base(&self) -> &str {
        match self {
            Self::Race(race) => &race.base,
            Self::Run(spec) => &spec.base,
        }
    }

    pub fn kernels(&self) -> &str {
        match self {
            Self::Race(race) => &race.kernels,
            Self::Run(spec) => &spec.kernels,
        }
    }

    /// The adapter that the job starts from.
    pub fn from_adapter(&self) -> Option<&FromAdapter> {
        match self {
            Self::Race(_) => None,
            Self::Run(spec) => spec.from_adapter.as_ref(),
        }
    }

    /// The specification that an adapter was trained by: in a race, the winner's.
    pub fn spec(&self, trained: &Trained) -> Spec {
        match (self, &trained.race) {
            (Self::Race(race), Some(finish)) => race.spec(finish.winner),
            (Self::Race(race), None) => race.spec(0),
            (Self::Run(spec), _) => spec.as_ref().clone(),
        }
    }

    /// Trains to the end, or until `report` says stop. Resumes from what is on disk.
    ///
    /// # Errors
    /// As [`train`] and [`race::run`].
    pub fn carry_out(
        &self,
        base: &Arc<Base>,
        data: &Data,
        folders: &Folders,
        settings: &Settings,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<Stop>,
    ) -> Result<Outcome> {
        match self {
            Self::Race(race) => race::run(base, race, data, folders, settings, report),
            Self::Run(spec) => train(base, spec, data, folders, settings, report),
        }
    }
}
