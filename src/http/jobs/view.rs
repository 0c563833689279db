//! Response types of jobs.

use crate::http::adapters::AdapterVersion;
use crate::http::state::AppState;
use crate::store::{
    Dataset, Job, JobError, JobWorker, Metadata, Reference, RequestedAction, Status, none_if_not_found,
};
use chrono::{DateTime, Utc};
use espalier_core::dataset::Options;
use espalier_core::error::Result;
use espalier_core::model::BaseModelInfo;
use espalier_core::training::hyperparameters::ResolvedHyperparameters;
use espalier_core::training::successive_halving::ResolvedAuto;
use espalier_core::training::{FromAdapter, Hyperparameters, Plan, Progress, Validation};
use espalier_core::{adapter, task};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Training job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    pub id: Uuid,
    pub name: Option<String>,
    pub status: Status,
    /// `cancel` or `pause` if requested of a running job that has not stopped yet.
    #[schema(value_type = Option<String>)]
    pub requested_action: Option<RequestedAction>,
    pub task: task::Config,
    /// Resolved method with all defaults; for `auto`, with all candidates.
    pub method: JobMethod,
    /// Adapter that the job is initialized from, and whether its head is reused.
    pub from_adapter: Option<FromAdapter>,
    /// Resolved hyperparameters with all defaults; for `auto`, those that the candidates share.
    pub hyperparameters: JobHyperparameters,
    pub validation: Validation,
    pub dataset_id: Uuid,
    /// How the dataset is read.
    pub options: Options,
    /// Labels in the order of the head's rows.
    pub labels: Vec<String>,
    pub metadata: Metadata,
    /// Place among the owner's queued jobs: the job of the highest priority starts first.
    pub priority: i32,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Training progress of the current or last attempt.
    pub progress: Option<Progress>,
    /// Metrics on the validation examples, if the job succeeded.
    #[schema(value_type = Option<Object>)]
    pub metrics: Option<serde_json::Value>,
    /// Trained adapter, if the job succeeded.
    pub adapter_id: Option<Uuid>,
    /// Reason of the failure, if the job failed; reason of the last attempt's end, if it is tried again.
    pub error: Option<JobError>,
    /// Number of attempts started.
    pub attempt: u32,
    /// Earliest time of the next attempt, if a queued job has to wait after a failed one.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Process that runs the job; `null` unless it is running.
    pub worker: Option<JobWorker>,
}

/// Method of a single run, or the candidates of `auto`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum JobMethod {
    Auto(ResolvedAuto),
    Single(adapter::Config),
}

/// Hyperparameters of a single run, or those that the candidates of `auto` share.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum JobHyperparameters {
    Resolved(ResolvedHyperparameters),
    Shared(Hyperparameters),
}

/// Training job with its queue position, adapter and dataset.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f", "name": "support-intents", "status": "running", "requested_action": null,
    "task": {"type": "sequence_classification", "pooling": "mean"},
    "method": {"type": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["query", "value"], "rslora": false},
    "hyperparameters": {"epochs": 3, "batch_size": 32, "learning_rate": 0.002, "max_length": 128, "seed": 42},
    "validation": {"fraction": 0.1},
    "dataset_id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f",
    "options": {"format": "csv", "columns": {"label": "category"}, "on_bad_rows": "refuse"},
    "labels": ["card_arrival", "lost_or_stolen_card"], "priority": 0,
    "created_at": "2026-01-05T09:30:00Z", "started_at": "2026-01-05T09:30:01Z", "finished_at": null,
    "progress": {"step": 120, "total_steps": 939, "epoch": 0.38, "train_loss": 1.91,
        "examples_per_second": 240.1, "eta_seconds": 109.0},
    "metrics": null, "adapter_id": null, "error": null, "attempt": 1, "next_attempt_at": null, "worker": null,
    "queue_position": null, "waiting_for": null, "adapter": null, "dataset": null
}))]
pub struct JobDetail {
    #[serde(flatten)]
    pub job: JobView,
    /// Number of queued jobs that start before it, where the owners take turns; `null` unless queued.
    pub queue_position: Option<u64>,
    /// What the queued job waits for, if it is for another base model or kernel set than those of this server: a worker that has them.
    pub waiting_for: Option<WaitingFor>,
    /// Trained adapter, if the job succeeded and the adapter is not deleted.
    pub adapter: Option<AdapterVersion>,
    /// Dataset with its validation report, if it is not deleted.
    pub dataset: Option<Dataset>,
}

/// Worker that a job needs.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingFor {
    /// Fingerprint of the base model.
    pub base: String,
    /// Kernel set, as `kernels` of `GET /base`.
    pub kernels: String,
}

impl WaitingFor {
    /// `None` for a job that workers like this server can run.
    fn of_job(job: &Job, server: &BaseModelInfo) -> Option<Self> {
        let (base, kernels) = (job.spec.base(), job.spec.kernels());
        let is_for_another = job.status == Status::Queued && (base != server.fingerprint || kernels != server.backend);
        is_for_another.then(|| Self { base: base.to_string(), kernels: kernels.to_string() })
    }
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        let Job {
            id,
            name,
            status,
            requested_action,
            dataset_id,
            options,
            spec: plan,
            metadata,
            progress,
            metrics,
            adapter_id,
            error,
            ..
        } = job;
        let (task, validation, labels) = (plan.task().clone(), plan.validation().clone(), plan.labels().to_vec());
        let from_adapter = plan.from_adapter().cloned();
        let (method, hyperparameters) = match plan {
            Plan::SuccessiveHalving(plan) => {
                (JobMethod::Auto(plan.method.clone()), JobHyperparameters::Shared(plan.shared_hyperparameters()))
            }
            Plan::Single(spec) => (JobMethod::Single(spec.method), JobHyperparameters::Resolved(spec.hyperparameters)),
        };
        Self {
            id,
            name,
            status,
            requested_action,
            task,
            method,
            from_adapter,
            hyperparameters,
            validation,
            dataset_id,
            options,
            labels,
            metadata,
            priority: job.priority,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            progress,
            metrics,
            adapter_id,
            error,
            attempt: job.attempt,
            next_attempt_at: job.next_attempt_at,
            worker: job.worker,
        }
    }
}

/// Loads the queue position, adapter and dataset of a job.
///
/// # Errors
/// `Internal` or `Busy` if the store fails.
pub async fn load_detail(state: &AppState, job: Job) -> Result<JobDetail> {
    let queue_position = match job.status {
        Status::Queued => Some(state.store.queue_position(job.id).await?),
        _ => None,
    };
    let adapter = match job.adapter_id {
        Some(id) => none_if_not_found(state.store.resolve_adapter(&job.owner, &Reference::Id(id)).await)?,
        None => None,
    };
    let adapter = adapter.as_ref().map(AdapterVersion::from);
    let dataset = none_if_not_found(state.store.dataset(&job.owner, job.dataset_id).await)?;
    let waiting_for = WaitingFor::of_job(&job, state.base.info());
    Ok(JobDetail { job: job.into(), queue_position, waiting_for, adapter, dataset })
}
