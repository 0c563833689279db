//! Validation of dataset files on the blocking thread pool, with limited concurrency.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::http::upload::FileMetadata;
use espalier_core::dataset::{self, Options, Report, RequestedFormat, TokenCounter, ValidatedDataset};
use espalier_core::error::{Context, Error, Problem, Result};
use espalier_core::task::{self, RowSchema};
use espalier_core::training::Hyperparameters;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Dataset file and how to read it.
pub struct DatasetFile {
    pub path: PathBuf,
    pub options: Options,
    /// Task of the rows; derived from the file if `None`.
    pub task: Option<task::Config>,
    /// Hyperparameters that determine the maximum length; `None` outside a job.
    pub hyperparameters: Option<Hyperparameters>,
}

/// Validates a training dataset.
///
/// # Errors
/// `Invalid` with the invalid rows.
pub async fn check(state: &AppState, file: DatasetFile) -> Result<Report> {
    reject_errors(run_check(state, file, |_| {}).await?)
}

/// Validates a validation dataset, whose labels must be among `labels`.
///
/// # Errors
/// `Invalid` with the invalid rows.
pub async fn check_validation(state: &AppState, file: DatasetFile, labels: Vec<String>) -> Result<Report> {
    let report = run_check(state, file, move |checked| dataset::check_validation_labels(checked, &labels)).await?;
    reject_errors(report).map_err(|error| match error {
        Error::Invalid(problem) => {
            let detail = format!("the validation dataset: {}", problem.detail);
            Error::Invalid(Problem { detail, ..problem })
        }
        error => error,
    })
}

/// Waits for a permit to validate: tokenization of whole files or prompts.
pub async fn acquire_permit(state: &AppState) -> Result<OwnedSemaphorePermit> {
    Arc::clone(&state.concurrency.validations).acquire_owned().await.context("waiting to validate")
}

async fn run_check(
    state: &AppState,
    file: DatasetFile,
    extra_check: impl FnOnce(&mut ValidatedDataset) + Send + 'static,
) -> Result<Report> {
    let permit = acquire_permit(state).await?;
    let (settings, base) = (Arc::clone(&state.dataset_settings), Arc::clone(&state.base));
    let report = run_blocking("validating a dataset", move || {
        let _permit = permit;
        let task = match file.task {
            Some(task) => task,
            None => dataset::infer_schema(&file.path, &file.options, &RowSchema::DETECTABLE, &settings)?.default_task(),
        };
        // `Spec::resolve` rejects a length above the base model's maximum later.
        let max_tokens = base.info().max_tokens;
        let default_length = task.defaults().max_length;
        let max_length = match &file.hyperparameters {
            Some(hyperparameters) => (hyperparameters.max_length(default_length, max_tokens) as usize).min(max_tokens),
            // The job that uses the dataset chooses the length, up to the base model's maximum.
            None if task.is_generative() => max_tokens,
            None => default_length.min(max_tokens),
        };
        let truncation = TokenCounter { tokenizer: base.tokenizer(), task: &task, max_length };
        let mut checked = dataset::validate(&file.path, &file.options, &task, &truncation, &settings)?;
        extra_check(&mut checked);
        Ok(checked.report)
    });
    report.await
}

fn reject_errors(report: Report) -> Result<Report> {
    match report.to_error() {
        Some(error) => Err(error),
        None => Ok(report),
    }
}

/// Finds out how a file is read: what the request leaves out comes from its content.
///
/// # Errors
/// `Invalid` (`unknown_format` and others) for a file that cannot be read as a dataset.
pub async fn detect_options(
    state: &AppState,
    path: PathBuf,
    requested: RequestedFormat,
    metadata: FileMetadata,
) -> Result<Options> {
    let permit = acquire_permit(state).await?;
    let settings = Arc::clone(&state.dataset_settings);
    run_blocking("detecting a dataset's format", move || {
        let _permit = permit;
        let named = (metadata.file_name.as_deref(), metadata.content_type.as_deref());
        dataset::detect_options(&path, &requested, named, &settings)
    })
    .await
}
