//! How a job is shown.
//!
//! Knows nothing of requests.

use crate::http::adapters::Version;
use crate::http::state::State;
use crate::store::{Dataset, Job, JobError, Reference, Status, Wish};
use chrono::{DateTime, Utc};
use espalier_core::data::Options;
use espalier_core::error::{Error, Result};
use espalier_core::training::hyperparameters::Resolved;
use espalier_core::training::race::Entered;
use espalier_core::training::{FromAdapter, Hyperparameters, Plan, Progress, Validation};
use espalier_core::{adapter, task};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A job as lists show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct View {
    pub id: Uuid,
    pub name: Option<String>,
    pub status: Status,
    /// `cancel` or `pause` where a running job was asked to and has not done it yet.
    #[schema(value_type = Option<String>)]
    pub wish: Option<Wish>,
    pub task: task::Config,
    /// As it was asked for, with every default written out; in a race, with every candidate's.
    pub method: Methods,
    /// The adapter that it starts from, and what becomes of its head.
    pub from_adapter: Option<FromAdapter>,
    /// With every default written out; in a race, what the candidates share.
    pub hyperparameters: Settings,
    pub validation: Validation,
    pub dataset_id: Uuid,
    /// How the dataset is read.
    pub options: Options,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub progress: Option<Progress>,
    /// On success, what was measured on the validation examples.
    #[schema(value_type = Option<Object>)]
    pub metrics: Option<serde_json::Value>,
    pub adapter_id: Option<Uuid>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// How often it was begun.
    pub attempt: u32,
}

/// One method, or those of a race.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = JobMethod)]
pub enum Methods {
    Race(Entered),
    One(adapter::Config),
}

/// Those of a run, or what the candidates of a race share.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = JobHyperparameters)]
pub enum Settings {
    Own(Resolved),
    Shared(Hyperparameters),
}

/// A job with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobDetail, example = json!({
    "id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f", "name": "support-intents", "status": "running", "wish": null,
    "task": {"type": "sequence_classification", "pooling": "mean"},
    "method": {"type": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["query", "value"], "rslora": false},
    "hyperparameters": {"epochs": 3, "batch_size": 32, "learning_rate": 0.002, "max_length": 128, "seed": 42},
    "validation": {"fraction": 0.1},
    "dataset_id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f",
    "options": {"format": "csv", "columns": {"label": "category"}, "on_bad_rows": "refuse"},
    "labels": ["card_arrival", "lost_or_stolen_card"],
    "created_at": "2026-01-05T09:30:00Z", "started_at": "2026-01-05T09:30:01Z", "finished_at": null,
    "progress": {"step": 120, "total_steps": 939, "epoch": 0.38, "train_loss": 1.91,
        "examples_per_second": 240.1, "eta_seconds": 109.0},
    "metrics": null, "adapter_id": null, "error": null, "attempt": 1,
    "queue_place": null, "adapter": null, "dataset": null
}))]
pub struct Detail {
    #[serde(flatten)]
    pub job: View,
    /// While it is queued: how many jobs come before it.
    pub queue_place: Option<u64>,
    /// On success, its adapter, as long as that is kept.
    pub adapter: Option<Version>,
    /// Its dataset with what was found in it, as long as that is kept.
    pub dataset: Option<Dataset>,
}

impl From<Job> for View {
    fn from(job: Job) -> Self {
        let Job { id, name, status, wish, dataset_id, options, spec, progress, metrics, adapter_id, error, .. } = job;
        let (task, validation, labels) = (spec.task().clone(), spec.validation().clone(), spec.labels().to_vec());
        let from_adapter = spec.from_adapter().cloned();
        let (method, hyperparameters) = match spec {
            Plan::Race(race) => (Methods::Race(race.method.clone()), Settings::Shared(race.shared())),
            Plan::Run(spec) => (Methods::One(spec.method), Settings::Own(spec.hyperparameters)),
        };
        Self {
            id,
            name,
            status,
            wish,
            task,
            method,
            from_adapter,
            hyperparameters,
            validation,
            dataset_id,
            options,
            labels,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            progress,
            metrics,
            adapter_id,
            error,
            attempt: job.attempt,
        }
    }
}

/// Adds what other rows know.
///
/// # Errors
/// Those of the store.
pub async fn detail(state: &State, job: Job) -> Result<Detail> {
    let queue_place = match job.status {
        Status::Queued => Some(state.store.queue_place(job.id).await?),
        _ => None,
    };
    let adapter = match job.adapter_id {
        Some(id) => kept(state.store.adapter(&job.owner, &Reference::Id(id)).await)?,
        None => None,
    };
    let adapter = adapter.as_ref().map(Version::from);
    let dataset = kept(state.store.dataset(&job.owner, job.dataset_id).await)?;
    Ok(Detail { job: job.into(), queue_place, adapter, dataset })
}

/// What was deleted since is left out.
fn kept<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(row) => Ok(Some(row)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
