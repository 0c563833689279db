//! Fine-tuning jobs and checkpoints as OpenAI's API shows them.

use super::method::{AutoOr, FineTuningHyperparameters, FineTuningMethod, MethodSettings};
use crate::http::openai::ids::IdKind;
use crate::http::state::AppState;
use crate::store::none_if_not_found;
use crate::store::{Job, Metadata, Reference, ResolvedAdapter, Status};
use espalier_core::error::Result;
use espalier_core::task;
use espalier_core::training::{Plan, Validation};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "object": "fine_tuning.job", "id": "ftjob-01938f3e5a1c7c3e9d0a3b1f0c2d4e5f", "created_at": 1767605400, "finished_at": null,
    "estimated_finish": null, "status": "queued", "model": "SmolLM2-135M-Instruct", "fine_tuned_model": null, "organization_id": "default",
    "result_files": [], "training_file": "file-01938f3e4b2d7a108c110a9b8c7d6e5f", "validation_file": null, "trained_tokens": null, "seed": 42,
    "hyperparameters": {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0}, "integrations": [], "metadata": {}, "error": null,
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0}}}
}))]
pub struct FineTuningJob {
    /// `fine_tuning.job`
    pub object: &'static str,
    pub id: String,
    /// Seconds since 1970, as all times.
    pub created_at: i64,
    pub finished_at: Option<i64>,
    pub estimated_finish: Option<i64>,
    /// `queued`, `paused`, `running`, `succeeded`, `failed` or `cancelled`.
    pub status: &'static str,
    /// Base model.
    pub model: String,
    /// Value of `model` in requests, once the job has succeeded.
    pub fine_tuned_model: Option<String>,
    pub organization_id: String,
    /// File with the metrics of each step, once the job has succeeded.
    pub result_files: Vec<String>,
    pub training_file: String,
    pub validation_file: Option<String>,
    /// Tokens of the training file times the epochs, once the job has succeeded.
    pub trained_tokens: Option<u64>,
    pub seed: u64,
    pub hyperparameters: FineTuningHyperparameters,
    pub method: FineTuningMethod,
    #[schema(value_type = Vec<Object>)]
    pub integrations: Vec<Value>,
    pub metadata: Metadata,
    pub error: Option<FineTuningError>,
}

/// Why a job failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct FineTuningError {
    pub code: String,
    pub message: String,
    pub param: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Checkpoint {
    /// `fine_tuning.job.checkpoint`
    pub object: &'static str,
    pub id: String,
    pub created_at: i64,
    /// Value of `model` in requests.
    pub fine_tuned_model_checkpoint: String,
    pub fine_tuning_job_id: String,
    pub step_number: u64,
    /// Metrics on the validation examples.
    #[schema(value_type = Object)]
    pub metrics: Value,
}

impl FineTuningJob {
    /// # Errors
    /// Of the store.
    pub async fn load(state: &AppState, job: Job) -> Result<Self> {
        let adapter = load_adapter(state, &job).await?;
        let dataset = none_if_not_found(state.store.dataset(&job.owner, job.dataset_id).await)?;
        let has_succeeded = job.status == Status::Succeeded;
        let epochs = job.progress.as_ref().map(|progress| progress.epoch).filter(|_| has_succeeded);
        let tokens = dataset.map(|dataset| dataset.report.lengths.tokens);
        let trained_tokens = epochs.zip(tokens).map(|(epochs, tokens)| (epochs * tokens as f64).round() as u64);
        let eta = job.progress.as_ref().filter(|_| job.status == Status::Running).map(|progress| progress.eta_seconds);
        let estimated_finish = match eta.filter(|seconds| seconds.is_finite()) {
            Some(seconds) => Some(state.store.now().await?.timestamp().saturating_add(seconds as i64)),
            None => None,
        };
        let hyperparameters = hyperparameters(&job.spec);
        let error = job.error.filter(|_| job.status == Status::Failed);
        let validation_file = match job.spec.validation() {
            Validation::DatasetId(id) => Some(IdKind::File.format(*id)),
            Validation::Fraction(_) | Validation::Split(_) => None,
        };
        Ok(Self {
            object: "fine_tuning.job",
            id: IdKind::Job.format(job.id),
            created_at: job.created_at.timestamp(),
            finished_at: job.finished_at.map(|time| time.timestamp()),
            estimated_finish,
            status: job.status.as_str(),
            model: state.base.info().name.clone(),
            fine_tuned_model: adapter.as_ref().map(model_name),
            organization_id: job.owner,
            result_files: has_succeeded.then(|| IdKind::ResultFile.format(job.id)).into_iter().collect(),
            training_file: IdKind::File.format(job.dataset_id),
            validation_file,
            trained_tokens,
            seed: seed(&job.spec),
            method: method(job.spec.task(), hyperparameters.clone()),
            hyperparameters,
            integrations: Vec::new(),
            metadata: job.metadata,
            error: error.map(|error| FineTuningError { code: error.code, message: error.detail, param: None }),
        })
    }
}

impl Checkpoint {
    /// The published checkpoint of a job that has succeeded.
    ///
    /// # Errors
    /// Of the store.
    pub async fn load(state: &AppState, job: &Job) -> Result<Option<Self>> {
        let Some(adapter) = load_adapter(state, job).await? else { return Ok(None) };
        let metrics = job.metrics.clone().unwrap_or_default();
        let step = metrics["best_step"].as_u64().or_else(|| metrics["steps"].as_u64()).unwrap_or_default();
        let validation = &metrics["validation"];
        let metrics = json!({
            "step": step,
            "valid_loss": validation["loss"],
            "valid_mean_token_accuracy": validation["accuracy"],
            "full_valid_loss": validation["loss"],
            "full_valid_mean_token_accuracy": validation["accuracy"],
        });
        Ok(Some(Self {
            object: "fine_tuning.job.checkpoint",
            id: IdKind::Checkpoint.format(adapter.id),
            created_at: job.finished_at.unwrap_or(job.created_at).timestamp(),
            fine_tuned_model_checkpoint: model_name(&adapter),
            fine_tuning_job_id: IdKind::Job.format(job.id),
            step_number: step,
            metrics,
        }))
    }
}

async fn load_adapter(state: &AppState, job: &Job) -> Result<Option<ResolvedAdapter>> {
    let Some(id) = job.adapter_id else { return Ok(None) };
    none_if_not_found(state.store.resolve_adapter(&job.owner, &Reference::Id(id)).await)
}

/// Value of `model` for an adapter: `name@version`, which stays the same when a later job takes the name, or its id.
fn model_name(adapter: &ResolvedAdapter) -> String {
    match &adapter.name {
        Some(name) => format!("{name}@{}", adapter.version.get(..12).unwrap_or(&adapter.version)),
        None => adapter.id.to_string(),
    }
}

fn seed(plan: &Plan) -> u64 {
    match plan {
        Plan::Single(spec) => spec.hyperparameters.seed,
        Plan::SuccessiveHalving(plan) => plan.candidate_spec(0).hyperparameters.seed,
    }
}

fn hyperparameters(plan: &Plan) -> FineTuningHyperparameters {
    let (spec, beta) = match plan {
        Plan::Single(spec) => (spec.as_ref().clone(), beta(&spec.task)),
        Plan::SuccessiveHalving(plan) => (plan.candidate_spec(0), None),
    };
    let default_rate = spec.method.training_defaults().learning_rate;
    FineTuningHyperparameters {
        n_epochs: Some(AutoOr::Value(spec.hyperparameters.epochs)),
        batch_size: Some(AutoOr::Value(spec.hyperparameters.batch_size)),
        learning_rate_multiplier: Some(AutoOr::Value(spec.hyperparameters.learning_rate / default_rate)),
        beta: beta.map(AutoOr::Value),
    }
}

fn beta(task: &task::Config) -> Option<f64> {
    match task {
        task::Config::Preference(config) => Some(config.beta),
        _ => None,
    }
}

fn method(task: &task::Config, hyperparameters: FineTuningHyperparameters) -> FineTuningMethod {
    let settings = Some(MethodSettings { hyperparameters: Some(hyperparameters) });
    match beta(task) {
        Some(_) => FineTuningMethod { method_type: "dpo".to_string(), dpo: settings, ..FineTuningMethod::default() },
        None => FineTuningMethod {
            method_type: "supervised".to_string(),
            supervised: settings,
            ..FineTuningMethod::default()
        },
    }
}
