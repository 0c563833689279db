//! Builds the adapter of a finished run: its files, its row and the job's metrics.

use super::context::WorkerContext;
use crate::store::blobs::DataDir;
use crate::store::{AdapterDescription, Job, NewAdapter};
use chrono::{DateTime, Utc};
use espalier_core::artifact::{self, AdapterManifest, Artifact, BaseModelId, Probe, PublishedAdapter, probe};
use espalier_core::error::Result;
use espalier_core::model::BaseModel;
use espalier_core::task::Input;
use espalier_core::training::HalvingResult;
use espalier_core::training::{Progress, Spec, TrainingResult};
use serde_json::json;
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
        labels: spec.labels.clone(),
        temperature: trained.temperature,
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

/// Writes the adapter's folder. It is kept until the row that refers to it exists.
pub fn write_artifact(artifact: &Artifact, base: &BaseModel, folder: &DataDir) -> Result<PublishedAdapter> {
    folder.put_adapter(|adapters, temporary| artifact::publish_artifact(artifact, base, adapters, temporary))
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
            bytes: published.total_bytes,
            base_fingerprint: manifest.base.fingerprint.clone(),
            base_verified: manifest.base.fingerprint.is_some(),
            metrics: manifest.metrics.clone(),
            provenance,
        },
    }
}

/// Metrics of the job: those of the adapter, and the table of a successive halving. The table is not part of the adapter,
/// so the adapter equals that of a job with the winning hyperparameters.
pub fn job_metrics(manifest: &AdapterManifest, halving: Option<&HalvingResult>) -> serde_json::Value {
    let mut metrics = manifest.metrics.clone().unwrap_or_default();
    if let Some(halving) = halving {
        metrics["race"] = halving.table.clone();
    }
    metrics
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
