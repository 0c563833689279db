//! Request of a job: JSON with inline examples or a dataset id, or a form with a file.

use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{self, Json};
use crate::http::json;
use crate::http::multipart::{self, FormSpec};
use crate::http::resource_name::Name;
use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::http::upload::{self, Binary, Upload};
use crate::store::Metadata;
use axum::extract::{FromRequest, Request};
use espalier_core::dataset::{
    Decimal, Format, OnBadRows, Options, Quoting, Report, RequestedFormat, Separator, TextEncoding,
};
use espalier_core::error::{Error, FieldError, Problem, Result, json_pointer};
use espalier_core::task::Split;
use espalier_core::training::warm_start::SourceAdapter;
use espalier_core::training::{Hyperparameters, Method, Plan, Samples, Validation};
use espalier_core::{artifact, task};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Training job to create. Every field except the examples is optional.
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
    /// Name that refers to the trained adapter. An adapter without a name is used by its id.
    pub name: Option<Name>,
    /// Task; derived from the fields of the dataset by default.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub task: Option<task::Config>,
    /// Adapter method. Default: `head` if the base model is a sentence encoder with its own pooling and the examples are single
    /// texts, otherwise `lora`. The type
    /// `auto` selects among several candidates by successive halving.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub method: Option<Method>,
    /// Adapter to initialize from: an id, a name or `name@version`. The job uses its method. Its head is reused if the task and the
    /// labels are compatible, otherwise a new head is initialized; the job's `from_adapter` reports which.
    pub from_adapter: Option<String>,
    /// Hyperparameters; those left out get defaults.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub hyperparameters: Hyperparameters,
    /// Maps the task's fields (such as `text`, `text_pair`, `label`) to columns of the file.
    pub columns: Option<BTreeMap<String, String>>,
    /// File format; found in the content by default.
    pub format: Option<Format>,
    /// Character between two columns, such as `;` or `\t`; found in the header by default.
    pub separator: Option<Separator>,
    /// Meaning of double quotes in a file with columns; found in the content by default.
    pub quoting: Option<Quoting>,
    /// Encoding of the text, such as `windows-1252`; by default UTF-8, or UTF-16 where the content shows it.
    pub encoding: Option<TextEncoding>,
    /// `refuse` rejects a dataset with invalid rows, `skip` leaves them out with a warning.
    pub on_bad_rows: Option<OnBadRows>,
    /// Names of the labels or tags that the file gives as numbers: integers are indices into this list, and a list of zeros and ones has
    /// one for each name. Names of columns of zeros and ones make these the labels of each row.
    pub label_names: Option<Vec<String>>,
    /// Character between the labels of a text with several labels; by default `;`, or `|` or `,` where parts of labels repeat.
    pub label_separator: Option<Separator>,
    /// Character before the fraction of the file's numbers, `.` or `,`; needed for numbers with groups of thousands, a decimal comma, a
    /// currency or a percent sign.
    pub decimal: Option<Decimal>,
    /// Rows to read of a file with a column `split` or `set`. Default: `train`.
    pub split: Option<Split>,
    /// Source of the validation examples: `{"fraction": 0.1}`, `{"dataset_id": "…"}`, or `{"split": "validation"}`, the rows of the
    /// file that its column `split` or `set` marks.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub validation: Option<Validation>,
    /// Prompts that the adapter continues after every epoch with greedy decoding; the texts become metrics events with the split
    /// `samples`. Only for generative tasks.
    #[serde(deserialize_with = "json::deserialize_object")]
    pub samples: Option<Samples>,
    /// Inline examples, such as `{"text": "…", "label": "…"}`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub examples: Option<Vec<serde_json::Value>>,
    /// Uploaded dataset.
    pub dataset_id: Option<Uuid>,
    /// Up to 16 pairs that are stored with the job: keys of 1 to 64 characters, values of at most 512.
    pub metadata: Metadata,
    /// Place among your own queued jobs: the job of the highest priority starts first, and of equal ones the oldest.
    #[schema(minimum = -100, maximum = 100, default = 0)]
    pub priority: i32,
}

const PRIORITIES: RangeInclusive<i32> = -100..=100;

/// Largest metadata of a job, as in OpenAI's API.
const MAX_METADATA_PAIRS: usize = 16;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;

/// Job and dataset file.
#[derive(ToSchema)]
pub struct JobForm {
    /// The job; every field is optional.
    pub job: Option<JobRequest>,
    /// The file, with a file name.
    pub dataset: Binary,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct SubmitQuery {
    /// Validates the request and answers 200 with the dataset's report, without storing anything.
    pub validate_only: bool,
}

/// Result of validating a job request.
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
        "kernels": "candle-cpu", "base": "sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"},
    "estimated_seconds": 41.5
}))]
pub struct ValidatedJob {
    /// How the dataset is read.
    pub options: Options,
    /// Validation report of the dataset.
    pub report: Report,
    /// Resolved job, with all defaults.
    pub spec: Plan,
    /// Approximate training time in seconds on this machine, if it is otherwise idle, without the time in the queue. Early stopping can end
    /// it sooner. `null` if the speed of the base is not measured yet, or cannot be.
    pub estimated_seconds: Option<f64>,
}

/// Received job request with the source of its examples.
pub struct JobSubmission {
    pub request: JobRequest,
    pub source: ExamplesSource,
}

/// Source of a job's training examples.
pub enum ExamplesSource {
    /// File of the request's form.
    File(Upload),
    /// Inline examples, written to a file.
    Inline(Upload),
    /// Stored dataset.
    Stored(Uuid),
}

impl JobRequest {
    /// # Errors
    /// `Invalid` for metadata that is too large, and for a priority outside of its limits.
    pub fn check_annotations(&self) -> Result<()> {
        if !PRIORITIES.contains(&self.priority) {
            let message = format!("must be between {} and {}", PRIORITIES.start(), PRIORITIES.end());
            return Err(Error::invalid_field("/priority", message));
        }
        if self.metadata.len() > MAX_METADATA_PAIRS {
            let message = format!("has {} pairs: give at most {MAX_METADATA_PAIRS}", self.metadata.len());
            return Err(Error::invalid_field("/metadata", message));
        }
        for (key, value) in &self.metadata {
            let is_valid =
                (1..=MAX_METADATA_KEY).contains(&key.chars().count()) && value.chars().count() <= MAX_METADATA_VALUE;
            if !is_valid {
                let message = format!(
                    "a key has 1 to {MAX_METADATA_KEY} characters, and a value at most {MAX_METADATA_VALUE}: shorten it"
                );
                return Err(Error::invalid_field(json_pointer(&["metadata", key.as_str()]), message));
            }
        }
        Ok(())
    }

    /// What the request says about the format of its file.
    pub fn requested_format(&self) -> RequestedFormat {
        let Self { format, separator, quoting, encoding, .. } = *self;
        RequestedFormat { format, separator, quoting, encoding }
    }
}

impl FromRequest<AppState> for JobSubmission {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        match extract::media_type(request.headers()) {
            Some(media_type) if media_type == "multipart/form-data" => from_form(request, state).await,
            Some(media_type) if extract::is_json(&media_type) => {
                let Json(request) = Json::<JobRequest>::from_request(request, state).await?;
                Ok(from_json(request, state).await?)
            }
            _ => Err(ApiError::unsupported_media_type(
                "send application/json, or multipart/form-data with the parts job and dataset",
            )),
        }
    }
}

async fn from_form(request: Request, state: &AppState) -> ApiResult<JobSubmission> {
    let spec = FormSpec::new(state, "job", "dataset", state.settings.max_dataset_bytes);
    let form = multipart::read_form::<JobRequest>(request, spec).await?;
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
    let RequestedFormat { format, separator, quoting, encoding } = request.requested_format();
    if format.is_some_and(|format| format != Format::Jsonl) {
        return Err(Error::invalid("invalid_body", "inline examples have no format: leave \"format\" out"));
    }
    if separator.is_some() || quoting.is_some() || encoding.is_some() {
        let detail =
            "inline examples have no columns and no encoding: leave \"separator\", \"quoting\" and \"encoding\" out";
        return Err(Error::invalid("invalid_body", detail));
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

/// Finds the adapter and reads what the job's defaults depend on.
///
/// # Errors
/// `Invalid` if the reference is not an id, a name or `name@version`; `NotFound`; `Conflict` if the adapter's files are damaged or
/// belong to another base model.
pub async fn resolve_initial_adapter(state: &AppState, caller: &Caller, reference_text: &str) -> Result<SourceAdapter> {
    let reference = caller.adapter_reference(state.store.as_ref(), reference_text).await;
    let reference = reference.map_err(with_from_adapter_pointer)?;
    let adapter = state.store.adapter(&caller.owner, &reference).await.map_err(with_from_adapter_pointer)?;
    if adapter.owner != caller.owner {
        let detail = "another owner shares this adapter: a job can start from your own adapters alone. Download it and import it";
        return Err(with_from_adapter_pointer(Error::invalid("adapter_of_another_owner", detail)));
    }
    let version = adapter.description.version;
    let (base, folder) = (Arc::clone(&state.base), state.blobs.adapters_dir(&version).await?);
    run_blocking("loading the initial adapter of a job", move || {
        let manifest = artifact::load_published(&folder, &version, &base)?.manifest;
        manifest.vocabulary.check_trainable().map_err(with_from_adapter_pointer)?;
        Ok(SourceAdapter {
            version,
            task: manifest.task,
            method: manifest.method,
            labels: manifest.labels,
            max_length: manifest.max_length,
        })
    })
    .await
}

fn with_from_adapter_pointer(error: Error) -> Error {
    let point_at_field = |problem: Problem| {
        let field_error = FieldError::at_pointer("/from_adapter", problem.detail.clone());
        problem.with_errors(vec![field_error])
    };
    match error {
        Error::Invalid(problem) => Error::Invalid(point_at_field(problem)),
        Error::NotFound(problem) => Error::NotFound(point_at_field(problem)),
        other => other,
    }
}
