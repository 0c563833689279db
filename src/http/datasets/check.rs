//! Validation of dataset files on the blocking thread pool, with limited concurrency.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use espalier_core::dataset::{self, Format, MaxLength, Options, Report, TokenCounter, ValidatedDataset};
use espalier_core::error::{Context, Error, Problem, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::{self, RowSchema};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Dataset file and how to read it.
pub struct DatasetFile {
    pub path: PathBuf,
    pub options: Options,
    /// Task of the rows; derived from the file if `None`.
    pub task: Option<task::Config>,
    /// Job that reads the file; `None` outside a job.
    pub job: Option<JobLengths>,
}

/// What a job says about the length of its sequences.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobLengths {
    pub max_length: Option<u32>,
    /// Virtual tokens of the method, which are part of a sequence.
    pub virtual_tokens: usize,
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
            None => dataset::infer_schema(&file.path, &file.options, &RowSchema::DETECTABLE)?.default_task(),
        };
        let truncation = token_counter(&base, &task, file.job);
        let mut checked = dataset::validate(&file.path, &file.options, &task, &truncation, &settings)?;
        extra_check(&mut checked);
        Ok(checked.report)
    });
    report.await
}

/// Counter for a job, or for the jobs that will use the file: these choose the length, so a row for generation is refused only where
/// nothing to learn remains within the base's longest sequence.
fn token_counter<'a>(base: &'a BaseModel, task: &'a task::Config, job: Option<JobLengths>) -> TokenCounter<'a> {
    let JobLengths { max_length, virtual_tokens } = job.unwrap_or_default();
    // `Spec::resolve` rejects a length above the base model's maximum later.
    let longest = base.info().max_tokens.saturating_sub(virtual_tokens);
    let max_length = match max_length {
        Some(max_length) => MaxLength::Fixed(max_length as usize),
        None if job.is_none() && task.is_generative() => MaxLength::Fixed(longest),
        None => MaxLength::Covering { min: task.defaults().max_length },
    };
    TokenCounter { tokenizer: base.tokenizer(), task, max_length, longest }
}

fn reject_errors(report: Report) -> Result<Report> {
    match report.to_error() {
        Some(error) => Err(error),
        None => Ok(report),
    }
}

/// Returns the requested format, or derives it from the file name or the content type.
///
/// # Errors
/// `Invalid` (`unknown_format`) if neither gives a format.
pub fn resolve_format(
    requested: Option<Format>,
    file_name: Option<&str>,
    content_type: Option<&str>,
) -> Result<Format> {
    requested.or_else(|| Format::detect(file_name, content_type)).ok_or_else(|| {
        Error::invalid(
            "unknown_format",
            "neither the file's name nor its content type says what it is: give \"format\": \"csv\", \"tsv\" or \"jsonl\"",
        )
    })
}
