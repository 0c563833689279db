//! Builds the adapter of a finished run (its files, its row and the job's metrics), and classifies the outcomes of an attempt.

use super::WorkerContext;
use super::lease_guard::LeaseLost;
use crate::store::{AdapterDescription, AttemptFault, Job, JobError, Lease, NewAdapter};
use chrono::{DateTime, Utc};
use espalier_core::artifact::{AdapterManifest, Artifact, BaseModelId, Probe, PublishedAdapter, Vocabulary, probe};
use espalier_core::error::{Error, Problem, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::Input;
use espalier_core::training::{HalvingResult, Progress, Spec, StopReason, TrainingResult};
use serde_json::{Map, json};
use uuid::Uuid;

/// Format version of `espalier.json`.
const MANIFEST_FORMAT: u32 = 1;

/// Builds the adapter with its probe: inputs and the outputs that the trained adapter gives for them.
///
/// # Errors
/// `Invalid` (`adapter_without_effect`) if the adapter does not change the base's outputs.
pub fn build_artifact(base: &BaseModel, spec: &Spec, trained: TrainingResult) -> Result<Artifact> {
    let info = base.info();
    let manifest = AdapterManifest {
        format: MANIFEST_FORMAT,
        task: spec.task.clone(),
        method: spec.method.clone(),
        vocabulary: Vocabulary::default(),
        labels: spec.labels.clone(),
        temperature: trained.temperature,
        thresholds: trained.thresholds,
        max_length: spec.hyperparameters.max_length as usize,
        base: BaseModelId { name: info.name.clone(), fingerprint: Some(info.fingerprint.clone()) },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: info.backend.clone() },
        metrics: Some(trained.metrics),
    };
    let mut artifact = Artifact { manifest, weights: trained.weights };
    artifact.manifest.probe =
        probe::record_probe(&artifact, base, trained.probe_examples.into_iter().map(Input::from).collect())?;
    Ok(artifact)
}

/// Row of the adapter.
pub fn adapter_row(
    job: &Job,
    manifest: &AdapterManifest,
    published: PublishedAdapter,
    provenance: serde_json::Value,
) -> NewAdapter {
    NewAdapter {
        // The id is drawn once, so that a retried write inserts the same row.
        id: Uuid::now_v7(),
        owner: job.owner.clone(),
        name: job.name.clone(),
        job_id: Some(job.id),
        description: AdapterDescription {
            version: published.version,
            task: manifest.task.clone(),
            method: manifest.method.clone(),
            labels: manifest.labels.clone(),
            max_length: Some(manifest.max_length),
            bytes: published.total_bytes,
            base_fingerprint: manifest.base.fingerprint.clone(),
            base_verified: manifest.base.fingerprint.is_some(),
            metrics: manifest.metrics.clone(),
            provenance,
        },
        max_owner_bytes: None,
    }
}

/// Results of a run that are no part of its adapter, so that the adapter equals that of a job with the winning hyperparameters.
pub struct JobResults {
    halving: Option<HalvingResult>,
    validation_details: Map<String, serde_json::Value>,
}

impl JobResults {
    pub fn take(trained: &mut TrainingResult) -> Self {
        let halving = trained.successive_halving.clone();
        Self { halving, validation_details: std::mem::take(&mut trained.validation_details) }
    }

    /// Metrics of the job: those of the adapter, and these.
    pub fn job_metrics(&self, manifest: &AdapterManifest) -> serde_json::Value {
        let mut metrics = manifest.metrics.clone().unwrap_or_default();
        if let Some(halving) = &self.halving {
            metrics["race"] = halving.table.clone();
        }
        if let Some(validation) = metrics.get_mut("validation").and_then(serde_json::Value::as_object_mut) {
            validation.extend(self.validation_details.clone());
        }
        metrics
    }
}

/// Origin and speed of the run. They are in the row only, so that equal runs have equal versions.
pub fn provenance(
    context: &WorkerContext,
    job: &Job,
    progress: Option<&Progress>,
    finished_at: DateTime<Utc>,
) -> serde_json::Value {
    json!({
        "job_id": job.id,
        "from_adapter": job.spec.from_adapter().map(|source| &source.version),
        "attempt": job.attempt,
        "finished_at": finished_at,
        "examples_per_second": progress.map(|progress| progress.examples_per_second),
        "threads": context.settings.training.threads,
        "espalier": env!("CARGO_PKG_VERSION"),
    })
}

/// How an attempt ended. The job's own result is in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The job's row says how: it succeeded, failed, was stopped, or is tried again.
    Finished,
    /// The lease is lost, and the store does not know yet that the process lives.
    LeaseLost(Lease),
}

/// Why an attempt publishes no adapter.
#[derive(Debug)]
pub enum AttemptError {
    /// Cancelled, paused, requeued, or without a lease.
    Stopped(StopReason),
    /// The job cannot succeed, in any number of attempts.
    Failed(JobError),
    /// Error of the server or the machine: another attempt may succeed.
    Retryable(AttemptFault, Error),
}

impl From<LeaseLost> for AttemptError {
    fn from(_: LeaseLost) -> Self {
        Self::Stopped(StopReason::LeaseLost)
    }
}

/// Classifies errors of reading, training and publishing. `Conflict` means that a file or the base differs from the one that
/// the job was submitted for. Errors of the store never get here: the lease guard retries until the lease expires.
impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(problem)
            | Error::NotFound(problem)
            | Error::Conflict(problem)
            | Error::QuotaExceeded(problem) => Self::Failed(to_job_error(problem)),
            Error::Busy { .. } | Error::StorageFull(_) => Self::Retryable(AttemptFault::Environment, error),
            Error::Internal(_) => Self::Retryable(AttemptFault::Internal, error),
        }
    }
}

fn to_job_error(problem: Problem) -> JobError {
    JobError { code: problem.code.to_string(), detail: problem.detail }
}

/// Error in the row of a job that is tried again. An internal error itself is in the log only.
pub fn retryable_job_error(fault: AttemptFault, error: &Error) -> JobError {
    let detail = match (fault, error) {
        (_, Error::StorageFull(_)) => {
            "the disk of the server is full; the job goes on from its last checkpoint when there is space".to_string()
        }
        (AttemptFault::Environment, error) => format!("{error}; the job goes on from its last checkpoint"),
        (AttemptFault::Internal, _) => {
            "the attempt ended in an internal error, which is in the server's log; it is tried again".to_string()
        }
    };
    JobError { code: error.code().to_string(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn client_errors_fail_the_job_and_internal_errors_are_retried() {
        let invalid = Error::invalid("training_diverged", "lower learning_rate");
        let AttemptError::Failed(error) = AttemptError::from(invalid) else { panic!("must fail") };
        assert_eq!((error.code.as_str(), error.detail.as_str()), ("training_diverged", "lower learning_rate"));
        let fault = |error: Error| match AttemptError::from(error) {
            AttemptError::Retryable(fault, _) => fault,
            other => panic!("must be retried: {other:?}"),
        };
        assert_eq!(fault(Error::internal("a bug")), AttemptFault::Internal);
        assert_eq!(fault(Error::StorageFull(anyhow::anyhow!("no space"))), AttemptFault::Environment);
        assert_eq!(fault(Error::busy("database_unavailable", "away", Duration::ZERO)), AttemptFault::Environment);
        assert!(matches!(AttemptError::from(LeaseLost), AttemptError::Stopped(StopReason::LeaseLost)));
    }
}
