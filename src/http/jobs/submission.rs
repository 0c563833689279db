//! Submission of a job: validate the request and its dataset, resolve the plan, store the dataset, queue the job.
//!
//! Everything before [`persist`] is temporary, so that a rejected or cancelled request leaves nothing behind. `persist` runs to
//! completion even if the client disconnects.

use super::actions;
use super::request::{self, ExamplesSource, JobRequest, JobSubmission, ValidatedJob};
use super::time_estimate;
use crate::http::auth::Caller;
use crate::http::datasets::{InsertOutcome, check, insert_or_get, rollback};
use crate::http::error::ApiResult;
use crate::http::resource_name::Name;
use crate::http::spawn::{run_blocking, spawn_detached};
use crate::http::state::AppState;
use crate::http::upload::{FileMetadata, Upload};
use crate::store::{Dataset, Job, Metadata, NewJob};
use crate::telemetry;
use espalier_core::dataset::{self, Format, Options, Report};
use espalier_core::error::{Error, FieldError, Location, Problem, Result};
use espalier_core::task::RowSchema;
use espalier_core::task::Split;
use espalier_core::training::spec::{self, Spec};
use espalier_core::training::successive_halving::Auto;
use espalier_core::training::warm_start::{self, SourceAdapter};
use espalier_core::training::{Method, Plan, SuccessiveHalvingSpec, Validation};
use std::path::PathBuf;
use std::sync::Arc;
use tracing::Span;
use uuid::Uuid;

/// Valid submission with its resolved plan.
struct ValidatedSubmission {
    name: Option<String>,
    dataset: DatasetSource,
    options: Options,
    report: Report,
    plan: Plan,
    validation_dataset_id: Option<Uuid>,
    metadata: Metadata,
    priority: i32,
}

enum DatasetSource {
    New(Upload),
    Stored(Box<Dataset>),
}

impl DatasetSource {
    async fn path(&self, state: &AppState) -> Result<PathBuf> {
        match self {
            Self::New(upload) => Ok(upload.path().to_path_buf()),
            Self::Stored(dataset) => state.blobs.dataset(&dataset.hash).await,
        }
    }
}

/// Validates the request and queues the job. If an earlier attempt of the request has queued it, that job is returned.
///
/// # Errors
/// `Invalid` if the request or a row is invalid, `NotFound` for an unknown dataset, `Busy` if too many jobs are queued.
pub async fn submit(state: &AppState, caller: &Caller, submission: JobSubmission) -> ApiResult<Job> {
    let new_id = caller.new_object_id;
    if let Some(job) = new_id.find_created(state.store.job(&caller.owner, new_id.get())).await? {
        return Ok(job);
    }
    let validated = validate_submission(state, caller, submission).await?;
    let (state, caller) = (state.clone(), caller.clone());
    Ok(spawn_detached("queueing a job", async move { persist(&state, &caller, validated).await }).await?)
}

/// Validates the request without storing anything.
///
/// # Errors
/// The errors of [`submit`], except `Busy`.
pub async fn validate_only(state: &AppState, caller: &Caller, submission: JobSubmission) -> ApiResult<ValidatedJob> {
    let ValidatedSubmission { options, report, plan, .. } = validate_submission(state, caller, submission).await?;
    let estimated_seconds = time_estimate::estimate_seconds(state, &plan, &report).await;
    Ok(ValidatedJob { options, report, spec: plan, estimated_seconds })
}

async fn validate_submission(
    state: &AppState,
    caller: &Caller,
    submission: JobSubmission,
) -> Result<ValidatedSubmission> {
    let owner = caller.owner.as_str();
    let JobSubmission { mut request, source } = submission;
    request.check_annotations()?;
    let name = request.name.clone().map(Name::into_string);
    caller.check_new_name(name.as_deref())?;
    let (metadata, priority) = (std::mem::take(&mut request.metadata), request.priority);
    let initial_adapter = match &request.from_adapter {
        Some(adapter) => Some(request::resolve_initial_adapter(state, caller, adapter).await?),
        None => None,
    };
    if let (None, Some(adapter)) = (request.hyperparameters.max_length, &initial_adapter) {
        request.hyperparameters.max_length = u32::try_from(adapter.max_length).ok();
    }
    let (dataset, options, mut report) = check_dataset(state, owner, &request, source).await?;
    let dataset_labels: Vec<String> = report.labels.iter().map(|count| count.label.clone()).collect();
    let labels = request.task.clone().unwrap_or_else(|| report.target.default_task()).head_labels(&dataset_labels);
    request.validation = request.validation.or_else(|| default_validation(&options, &report));
    let validation_dataset_id = match request.validation {
        Some(Validation::DatasetId(id)) => Some(id),
        Some(Validation::Split(_) | Validation::Fraction(_)) | None => None,
    };
    let training_path = dataset.path(state).await?;
    let validation_file = match request.validation {
        Some(Validation::DatasetId(id)) => {
            let dataset = state.store.dataset(owner, id).await?;
            Some((state.blobs.dataset(&dataset.hash).await?, dataset.options))
        }
        Some(Validation::Split(split)) => Some((training_path.clone(), options.with_split(split))),
        Some(Validation::Fraction(_)) | None => None,
    };
    if let Some((path, validation_options)) = validation_file {
        let task = Some(request.task.clone().unwrap_or_else(|| report.target.default_task()));
        let file = check::DatasetFile { path, options: validation_options, task, job: Some(job_lengths(&request)) };
        let training = check::TrainingFile { path: training_path, options: options.clone(), labels: labels.clone() };
        let checked = check::check_validation(state, file, training).await;
        let validation = match request.validation {
            Some(Validation::Split(_)) => checked.map_err(suggest_fraction)?,
            _ => checked?,
        };
        report.warn_about_shared_examples(validation.shared, validation.rows);
    }
    let example_count = count_examples(&report, &request, state);
    let (auto, mut spec_request) = build_spec_request(request, report.target, initial_adapter);
    spec_request.has_text_pairs = report.text_pairs > 0;
    spec_request.label_counts = report.labels.iter().map(|count| count.count).collect();
    spec_request.covering_length = covering_length(&report, &spec_request, state);
    let plan = resolve_plan(state, (auto, spec_request), labels, example_count).await?;
    Ok(ValidatedSubmission { name, dataset, options, report, plan, validation_dataset_id, metadata, priority })
}

/// Validates with the rows that the file marks for validation. `None` if it marks none: [`Spec::resolve`] then draws a share of the rows.
fn default_validation(options: &Options, report: &Report) -> Option<Validation> {
    let reads_training_rows = options.split.is_none_or(|split| split == Split::Train);
    let has_rows = report.left_out.contains_key(&Split::Validation.left_out_reason());
    (reads_training_rows && has_rows).then_some(Validation::Split(Split::Validation))
}

/// Adds how the job can do without the file's own validation rows.
fn suggest_fraction(error: Error) -> Error {
    let Error::Invalid(problem) = error else { return error };
    let advice = "`\"validation\": {\"fraction\": 0.1}` takes a share of the training rows instead";
    let detail = format!("{}; {advice}", problem.detail);
    Error::Invalid(Problem { detail, ..problem })
}

/// Resolves the defaults, and tokenizes the prompts of `samples`. Runs on a blocking thread, with a permit of the validations.
async fn resolve_plan(
    state: &AppState,
    (auto, request): (Option<Auto>, spec::Request),
    labels: Vec<String>,
    example_count: usize,
) -> Result<Plan> {
    let permit = check::acquire_permit(state).await?;
    let (base, max_candidates) = (Arc::clone(&state.base), state.settings.max_candidates);
    run_blocking("resolving a job's settings", move || {
        let _permit = permit;
        match auto {
            Some(auto) => {
                let plan =
                    SuccessiveHalvingSpec::resolve(&auto, &request, &labels, example_count, &base, max_candidates)?;
                Ok(Plan::SuccessiveHalving(Box::new(plan)))
            }
            None => Ok(Spec::resolve(&request, &labels, example_count, &base)?.into()),
        }
    })
    .await
}

/// Default of `max_length`; `None` for raw text that is packed, whose texts have any length.
fn covering_length(report: &Report, request: &spec::Request, state: &AppState) -> Option<usize> {
    let task = request.task.as_ref().filter(|task| !(task.packs_raw_text() && report.target == RowSchema::Text))?;
    Some(dataset::covering_length(&report.lengths, task.defaults().max_length, state.base.info().max_tokens))
}

/// Number of training examples. For causal language modelling on plain text, texts are packed into sequences of the maximum
/// length.
fn count_examples(report: &Report, request: &JobRequest, state: &AppState) -> usize {
    let task = request.task.clone().unwrap_or_else(|| report.target.default_task());
    let rows = usize::try_from(report.examples).unwrap_or(usize::MAX);
    match task.packs_raw_text() && report.target == RowSchema::Text {
        false => rows,
        true => {
            let model_max_tokens = state.base.info().max_tokens;
            let max_length = request.hyperparameters.max_length(task.defaults().max_length, model_max_tokens).max(1);
            usize::try_from(report.lengths.tokens.div_ceil(u64::from(max_length))).unwrap_or(usize::MAX)
        }
    }
}

/// Converts the request for [`Spec::resolve`], and separates the method `auto`. Without a task in the request, the task is that of
/// the initial adapter if it fits the dataset, otherwise the dataset's default task.
fn build_spec_request(
    request: JobRequest,
    target: RowSchema,
    from_adapter: Option<SourceAdapter>,
) -> (Option<Auto>, spec::Request) {
    let JobRequest { task, method, hyperparameters, validation, samples, .. } = request;
    let default_task = || {
        from_adapter.as_ref().map_or_else(|| target.default_task(), |adapter| warm_start::resolve_task(adapter, target))
    };
    let task = Some(task.map_or_else(default_task, |task| task.with_row_schema(target)));
    let (auto, method) = match method {
        Some(Method::Auto(auto)) => (Some(auto), None),
        Some(Method::Single(method)) => (None, Some(method)),
        None => (None, None),
    };
    let dataset_defaults = spec::Request::default();
    (auto, spec::Request { task, method, hyperparameters, validation, from_adapter, samples, ..dataset_defaults })
}

/// Finds the dataset and validates it; a stored dataset is validated again only if this job reads it differently.
async fn check_dataset(
    state: &AppState,
    owner: &str,
    request: &JobRequest,
    source: ExamplesSource,
) -> Result<(DatasetSource, Options, Report)> {
    let task = request.task.clone();
    let job = Some(job_lengths(request));
    let run_check = |path, options| {
        let task = task.clone();
        check::check(state, check::DatasetFile { path, options, task, job })
    };
    match source {
        ExamplesSource::File(upload) => {
            let path = upload.path().to_path_buf();
            let metadata = upload.metadata.clone();
            let detected = check::detect_options(state, path, request.requested_format(), metadata).await?;
            let options = with_request(request, detected);
            let report = run_check(upload.path().to_path_buf(), options.clone()).await?;
            Ok((DatasetSource::New(upload), options, report))
        }
        ExamplesSource::Inline(upload) => {
            let options = with_request(request, Options::new(Format::Jsonl));
            let report = run_check(upload.path().to_path_buf(), options.clone()).await.map_err(lines_to_pointers)?;
            Ok((DatasetSource::New(upload), options, report))
        }
        ExamplesSource::Stored(id) => {
            let dataset = state.store.dataset(owner, id).await?;
            let read_options = merge_options(state, request, &dataset).await?;
            let is_same_task = task.as_ref().is_none_or(|task| task.row_schemas().contains(&dataset.report.target));
            // For generative tasks the number of trained tokens depends on this job's maximum length.
            let effective_task = task.clone().unwrap_or_else(|| dataset.report.target.default_task());
            let is_same_task = is_same_task && !effective_task.is_generative();
            let report = match read_options == dataset.options && is_same_task {
                true => dataset.report.clone(),
                false => run_check(state.blobs.dataset(&dataset.hash).await?, read_options.clone()).await?,
            };
            Ok((DatasetSource::Stored(Box::new(dataset)), read_options, report))
        }
    }
}

fn job_lengths(request: &JobRequest) -> check::JobLengths {
    let virtual_tokens = match &request.method {
        Some(Method::Auto(auto)) => auto.num_virtual_tokens(),
        Some(Method::Single(method)) => method.num_virtual_tokens(),
        None => 0,
    };
    check::JobLengths { max_length: request.hyperparameters.max_length, virtual_tokens }
}

/// Options of the request, completed with those stored with the dataset. A file whose format the request describes anew is looked at
/// again.
async fn merge_options(state: &AppState, request: &JobRequest, dataset: &Dataset) -> Result<Options> {
    let requested = request.requested_format();
    if requested.is_empty() {
        return Ok(with_request(request, dataset.options.clone()));
    }
    let metadata = FileMetadata::new(dataset.file_name.as_deref(), None);
    let path = state.blobs.dataset(&dataset.hash).await?;
    let Options { format, separator, quoting, encoding, .. } =
        check::detect_options(state, path, requested, metadata).await?;
    Ok(with_request(request, Options { format, separator, quoting, encoding, ..dataset.options.clone() }))
}

/// Replaces the options that the request gives.
fn with_request(request: &JobRequest, options: Options) -> Options {
    Options {
        columns: request.columns.clone().unwrap_or(options.columns),
        on_bad_rows: request.on_bad_rows.unwrap_or(options.on_bad_rows),
        label_names: request.label_names.clone().unwrap_or(options.label_names),
        label_separator: request.label_separator.or(options.label_separator),
        decimal: request.decimal.or(options.decimal),
        split: request.split.or(options.split),
        ..options
    }
}

/// Replaces line numbers by JSON pointers: each inline example is one line of the written file.
fn lines_to_pointers(error: Error) -> Error {
    let Error::Invalid(mut problem) = error else { return error };
    for field_error in &mut problem.errors {
        if let Location::Line(line) = field_error.location {
            *field_error = FieldError::at_pointer(
                format!("/examples/{}", line.saturating_sub(1)),
                std::mem::take(&mut field_error.message),
            );
        }
    }
    Error::Invalid(problem)
}

/// Stores the dataset, then inserts the job's row.
async fn persist(state: &AppState, caller: &Caller, validated: ValidatedSubmission) -> Result<Job> {
    let ValidatedSubmission {
        name,
        dataset: dataset_source,
        options,
        report,
        plan,
        validation_dataset_id,
        metadata,
        priority,
    } = validated;
    check_adapter_space(state, caller).await?;
    let owner = caller.owner.as_str();
    let (dataset, outcome) = match dataset_source {
        DatasetSource::Stored(dataset) => (*dataset, InsertOutcome::Existing),
        DatasetSource::New(upload) => insert_or_get(state, owner, upload, options.clone(), report).await?,
    };
    let dataset_id = dataset.id;
    let job = NewJob {
        id: caller.new_object_id.get(),
        owner: owner.to_string(),
        name,
        dataset_id,
        validation_dataset_id,
        options,
        spec: plan,
        metadata,
        created_by: Some(caller.credential.name.clone()),
        trace_context: telemetry::sampled_context(&Span::current()).map(|context| context.to_column()),
        priority,
    };
    match actions::within_quota(caller, &state.settings, |max_queued| state.store.add_job(job, max_queued)).await {
        Ok(job) => Ok(job),
        Err(error) => {
            if outcome == InsertOutcome::Created {
                rollback(state, owner, dataset_id).await;
            }
            Err(error)
        }
    }
}

/// Refuses a job whose adapter would have no room: a trained adapter is never refused.
async fn check_adapter_space(state: &AppState, caller: &Caller) -> Result<()> {
    let Some(limit) = caller.limits().adapter_bytes else { return Ok(()) };
    let bytes = state.store.owner_storage(&caller.owner).await?.adapter_bytes;
    match bytes < limit {
        true => Ok(()),
        false => Err(Error::QuotaExceeded(Problem::new(
            "adapter_bytes_exceeded",
            format!("your adapters take {bytes} bytes, and the limit is {limit}: delete adapters that you do not need"),
        ))),
    }
}
