//! Looking into a dataset: the only place where this room calls the data room.
//!
//! Knows nothing of jobs or of where the file came from.

use super::spawn::run_blocking;
use super::state::AppState;
use espalier_core::dataset::{self, Format, Options, Report, TokenCounter, ValidatedDataset};
use espalier_core::error::{Context, Error, Problem, Result};
use espalier_core::task::{self, RowSchema};
use espalier_core::training::Hyperparameters;
use std::path::PathBuf;
use std::sync::Arc;

/// A file and how it is to be read.
pub struct DatasetFile {
    pub path: PathBuf,
    pub options: Options,
    /// Read off the file where it is left out.
    pub task: Option<task::Config>,
    /// Where training will cut a text; `None` where no job says it yet.
    pub hyperparameters: Option<Hyperparameters>,
}

/// Checks a file as a dataset, away from the async threads. One with errors is refused.
///
/// # Errors
/// `Invalid` with the bad rows.
pub async fn check(state: &AppState, file: DatasetFile) -> Result<Report> {
    reject_errors(run_check(state, file, |_| {}).await?)
}

/// The same for a validation dataset of a training dataset with these labels.
///
/// # Errors
/// `Invalid` with the bad rows.
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

async fn run_check(
    state: &AppState,
    file: DatasetFile,
    extra_check: impl FnOnce(&mut ValidatedDataset) + Send + 'static,
) -> Result<Report> {
    let permit =
        Arc::clone(&state.concurrency.validations).acquire_owned().await.context("waiting to check a dataset")?;
    let (settings, base) = (Arc::clone(&state.dataset_settings), Arc::clone(&state.base));
    let report = run_blocking("checking a dataset", move || {
        let _permit = permit;
        let task = match file.task {
            Some(task) => task,
            None => dataset::infer_schema(&file.path, &file.options, &RowSchema::DETECTABLE)?.default_task(),
        };
        // a length that the base does not allow is refused later, with the job's other settings
        let max_tokens = base.info().max_tokens;
        let default_length = task.defaults().max_length;
        let max_length = match &file.hyperparameters {
            Some(hyperparameters) => (hyperparameters.max_length(default_length, max_tokens) as usize).min(max_tokens),
            // The job that will use it may say any.
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

/// The format that was given, or else what the file's name or content type says.
///
/// # Errors
/// `Invalid` where nothing says it.
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
