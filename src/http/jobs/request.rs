//! What a client sends to start a job: JSON with its examples inline or a dataset's id, or a form with a file.
//!
//! Knows nothing of what is then done with it.

use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, BodyTimeouts};
use crate::http::job_submission::{ExamplesSource, JobSubmission};
use crate::http::json;
use crate::http::multipart::{self, FormSpec};
use crate::http::resource_name::Name;
use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::http::upload::{self, Binary};
use axum::extract::{FromRequest, Request};
use espalier_core::dataset::{Format, OnBadRows, Options, Report};
use espalier_core::error::{Error, Result};
use espalier_core::task;
use espalier_core::training::{Hyperparameters, Method, Plan, Samples, Validation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A job to be. Everything but the examples may be left out.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({
    "name": "support-intents",
    "task": {"type": "sequence_classification"},
    "method": {"type": "lora", "rank": 8, "alpha": 16, "target_modules": ["query", "value"], "dropout": 0.0},
    "hyperparameters": {"epochs": 3, "batch_size": 32, "learning_rate": 0.002, "max_length": 128, "seed": 42},
    "columns": {"text": "text", "label": "category"},
    "validation": {"fraction": 0.1},
    "dataset_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"
}))]
pub struct JobRequest {
    /// Will point to the adapter; without one, the adapter is asked for by its id.
    pub name: Option<Name>,
    /// Read off the data where it is left out.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub task: Option<task::Config>,
    /// Where it is left out: a `head` on a sentence encoder with its own pooling, else LoRA with its defaults. With the type
    /// `auto`, a race of several methods.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub method: Option<Method>,
    /// An adapter to start from, by id, name or `name@version`: it is trained further, and stays what it is. Its method is
    /// the job's; its head is taken over where task and labels fit, else the head starts afresh, and the job says so.
    pub from_adapter: Option<String>,
    #[serde(deserialize_with = "json::deserialize_object")]
    pub hyperparameters: Hyperparameters,
    /// From the task's fields (`text`, `text_pair`, `label`) to the file's columns.
    pub columns: Option<BTreeMap<String, String>>,
    /// The file's format, where neither its name nor its content type says it.
    pub format: Option<Format>,
    /// `skip` turns rows that cannot be used into warnings.
    pub on_bad_rows: Option<OnBadRows>,
    /// Where validation examples come from: `{"fraction": 0.1}` or `{"dataset_id": "…"}`.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub validation: Option<Validation>,
    /// Prompts behind which the adapter's likeliest words are kept with the job after every epoch, as metrics rows with the split
    /// `samples`: for tasks that generate.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub samples: Option<Samples>,
    /// The examples themselves, for example `{"text": "…", "label": "…"}`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub examples: Option<Vec<serde_json::Value>>,
    /// A dataset that was uploaded before.
    pub dataset_id: Option<Uuid>,
}

/// A job with its dataset's file.
#[derive(ToSchema)]
pub struct JobForm {
    /// Everything may be left out.
    pub job: Option<JobRequest>,
    /// The file, with its name.
    pub dataset: Binary,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct SubmitQuery {
    /// Only check: answer 200 with the dataset's report, and keep nothing.
    pub validate_only: bool,
}

/// What a job would be made of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "options": {"format": "csv", "columns": {"label": "category"}, "on_bad_rows": "refuse"},
    "report": {"rows": 10003, "examples": 10003, "errors": [], "error_count": 0, "warnings": [], "warning_counts": {},
        "labels": [{"label": "card_arrival", "count": 153}],
        "lengths": {"min": 5, "median": 14, "p95": 36, "max": 98, "buckets": [{"up_to": 16, "count": 6020}]}},
    "spec": {"task": {"type": "sequence_classification", "pooling": "mean"},
        "method": {"type": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["query", "value"], "rslora": false},
        "hyperparameters": {"epochs": 3, "batch_size": 32, "learning_rate": 0.002, "max_length": 128, "seed": 42},
        "validation": {"fraction": 0.1}, "labels": ["card_arrival", "lost_or_stolen_card"], "micro_batch_tokens": 2048,
        "kernels": "candle-cpu", "base": "sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"}
}))]
pub struct ValidatedJob {
    /// How the file was read.
    pub options: Options,
    /// What was found in it.
    pub report: Report,
    /// The job with every default written out.
    pub spec: Plan,
}

impl FromRequest<AppState> for JobSubmission {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let settings = &state.settings;
        let timeouts = BodyTimeouts::new(settings.body_idle_timeout, settings.body_total_timeout);
        match extract::media_type(request.headers()) {
            Some(media_type) if media_type == "multipart/form-data" => from_form(request, state, timeouts).await,
            Some(media_type) if extract::is_json(&media_type) => {
                let request: JobRequest = extract::read_json_body(request, settings.max_json_bytes, timeouts).await?;
                Ok(from_json(request, state).await?)
            }
            _ => Err(ApiError::unsupported_media_type(
                "send application/json, or multipart/form-data with the parts job and dataset",
            )),
        }
    }
}

async fn from_form(request: Request, state: &AppState, timeouts: BodyTimeouts) -> ApiResult<JobSubmission> {
    let form_spec = FormSpec {
        json_part: "job",
        file_part: "dataset",
        max_json_bytes: state.settings.max_json_bytes,
        max_file_bytes: state.settings.max_dataset_bytes,
        timeouts,
        temp_dir: &state.data_dir.temp_dir(),
    };
    let form = multipart::read_form::<JobRequest>(request, &form_spec).await?;
    let mut request = form.json.unwrap_or_default();
    match (form.file, request.examples.take(), request.dataset_id) {
        (Some(file), None, None) => Ok(JobSubmission { request, source: ExamplesSource::File(file) }),
        (None, Some(examples), None) => Ok(write_inline_examples(request, examples, state).await?),
        (None, None, Some(id)) => Ok(JobSubmission { request, source: ExamplesSource::Stored(id) }),
        sources => Err(examples_source_error([sources.0.is_some(), sources.1.is_some(), sources.2.is_some()]).into()),
    }
}

async fn from_json(mut request: JobRequest, state: &AppState) -> Result<JobSubmission> {
    match (request.examples.take(), request.dataset_id) {
        (Some(examples), None) => write_inline_examples(request, examples, state).await,
        (None, Some(id)) => Ok(JobSubmission { request, source: ExamplesSource::Stored(id) }),
        (examples, id) => Err(examples_source_error([false, examples.is_some(), id.is_some()])),
    }
}

async fn write_inline_examples(
    request: JobRequest,
    examples: Vec<serde_json::Value>,
    state: &AppState,
) -> Result<JobSubmission> {
    if request.format.is_some_and(|format| format != Format::Jsonl) {
        return Err(Error::invalid("invalid_body", "inline examples have no format: leave \"format\" out"));
    }
    let folder = state.data_dir.temp_dir();
    let upload = run_blocking("writing inline examples", move || upload::write_jsonl(&examples, &folder)).await?;
    Ok(JobSubmission { request, source: ExamplesSource::Inline(upload) })
}

fn examples_source_error(sources: [bool; 3]) -> Error {
    let problem = if sources.contains(&true) { "are more than one of them" } else { "is none" };
    let detail =
        format!("there {problem} of \"examples\", \"dataset_id\" and a form's file \"dataset\": give exactly one");
    Error::invalid("dataset_missing", detail)
}
