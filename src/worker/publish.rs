//! From a finished run to a published adapter. Knows nothing of how it was trained.

use super::Workshop;
use crate::store::blobs::DataFolder;
use crate::store::{AdapterDescription, Job, NewAdapter};
use chrono::{DateTime, Utc};
use espalier_core::artifact::{self, Artifact, BaseCard, Card, Probe, Published, probe};
use espalier_core::error::Result;
use espalier_core::model::Base;
use espalier_core::task::Input;
use espalier_core::training::race::Finish;
use espalier_core::training::{Progress, Spec, Trained};
use serde_json::json;
use uuid::Uuid;

/// The version of `espalier.json` that is written.
const FORMAT: u32 = 1;

/// The adapter with its proof of effect.
///
/// # Errors
/// `Invalid` (`adapter_without_effect`) where the run changed nothing.
pub fn artifact(base: &Base, spec: &Spec, trained: Trained) -> Result<Artifact> {
    let info = base.info();
    let card = Card {
        format: FORMAT,
        task: spec.task.clone(),
        method: spec.method.clone(),
        labels: spec.labels.clone(),
        temperature: trained.temperature,
        max_length: spec.hyperparameters.max_length as usize,
        base: BaseCard { name: info.name.clone(), fingerprint: Some(info.fingerprint.clone()) },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: info.kernels.clone() },
        metrics: Some(trained.metrics),
    };
    let mut artifact = Artifact { card, weights: trained.weights };
    artifact.card.probe = probe::make(&artifact, base, trained.probe.into_iter().map(Input::from).collect())?;
    Ok(artifact)
}

/// Writes the folder, which stays until its row is there.
pub fn write(artifact: &Artifact, base: &Base, folder: &DataFolder) -> Result<Published> {
    folder.put_adapter(|adapters, temporary| artifact::write(artifact, base, adapters, temporary))
}

/// The row.
pub fn adapter(job: &Job, card: &Card, published: Published, provenance: serde_json::Value) -> NewAdapter {
    NewAdapter {
        // Drawn once: a publication that is tried again is the same one.
        id: Uuid::now_v7(),
        owner: job.owner.clone(),
        name: job.name.clone(),
        job_id: Some(job.id),
        description: AdapterDescription {
            version: published.version,
            task: card.task.clone(),
            method: card.method.clone(),
            labels: card.labels.clone(),
            bytes: published.bytes,
            base: card.base.fingerprint.clone(),
            base_verified: card.base.fingerprint.is_some(),
            metrics: card.metrics.clone(),
            provenance,
        },
    }
}

/// What the job shows: the adapter's figures, and in a race the table. That is no part of the adapter, which is the one that
/// its own job would have made.
pub fn metrics(card: &Card, race: Option<&Finish>) -> serde_json::Value {
    let mut metrics = card.metrics.clone().unwrap_or_default();
    if let Some(race) = race {
        metrics["race"] = race.table.clone();
    }
    metrics
}

/// Who, when and how fast: in the row only, so that equal work has an equal version.
pub fn provenance(
    workshop: &Workshop,
    job: &Job,
    progress: Option<&Progress>,
    finished_at: DateTime<Utc>,
) -> serde_json::Value {
    json!({
        "job_id": job.id,
        "from_adapter": job.spec.from_adapter().map(|from| &from.version),
        "attempt": job.attempt,
        "finished_at": finished_at,
        "examples_per_second": progress.map(|progress| progress.examples_per_second),
        "threads": workshop.settings.training.threads,
        "espalier": env!("CARGO_PKG_VERSION"),
    })
}
