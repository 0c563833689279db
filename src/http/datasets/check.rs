//! Validation of dataset files on the blocking thread pool, with limited concurrency.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::http::upload::FileMetadata;
use espalier_core::dataset::{
    self, InputKeys, MaxLength, NoLengths, Options, Report, RequestedFormat, TokenCounter, ValidatedDataset,
};
use espalier_core::error::{Context, Error, Problem, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::{self, RowSchema};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
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
    reject_errors(run_check(state, file, |_| ()).await?.0)
}

/// Training dataset of a job. The validation dataset is compared with it.
pub struct TrainingFile {
    pub path: PathBuf,
    pub options: Options,
    pub labels: Vec<String>,
}

/// Rows of a validation dataset, and those of them whose input is also in the training dataset.
#[derive(Debug, Clone, Copy, Default)]
pub struct ValidationRows {
    pub rows: usize,
    pub shared: usize,
}

/// Validates a validation dataset, whose labels must be among those of the training dataset.
///
/// # Errors
/// `Invalid` with the invalid rows.
pub async fn check_validation(state: &AppState, file: DatasetFile, training: TrainingFile) -> Result<ValidationRows> {
    let keys = input_keys(state, &file, training.path, training.options).await?;
    let labels = training.labels;
    let (report, shared) = run_check(state, file, move |checked| {
        dataset::check_validation_labels(checked, &labels);
        keys.count_shared(&checked.examples)
    })
    .await?;
    let report = reject_errors(report).map_err(|error| match error {
        Error::Invalid(problem) => {
            let detail = format!("the validation dataset: {}", problem.detail);
            Error::Invalid(Problem { detail, ..problem })
        }
        error => error,
    })?;
    Ok(ValidationRows { rows: usize::try_from(report.examples).unwrap_or(usize::MAX), shared })
}

/// Keys of the inputs of a training dataset, which is valid.
async fn input_keys(state: &AppState, file: &DatasetFile, path: PathBuf, options: Options) -> Result<InputKeys> {
    let permit = acquire_permit(state).await?;
    let (settings, task) = (Arc::clone(&state.dataset_settings), file.task.clone().unwrap_or_default());
    run_blocking("reading a training dataset", move || {
        let _permit = permit;
        let checked = dataset::validate(&path, &options, &task, &NoLengths, &settings)?;
        Ok(InputKeys::new(&checked.examples))
    })
    .await
}

/// Checks that a stored file is there.
///
/// # Errors
/// `Conflict` (`dataset_missing`).
pub fn file_exists(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let detail = "the dataset's file is missing from the data folder: send it again";
            Err(Error::conflict("dataset_missing", detail))
        }
        other => other.map(|_| ()).context("looking for a dataset's file"),
    }
}

/// Waits for a permit to validate: tokenization of whole files or prompts.
pub async fn acquire_permit(state: &AppState) -> Result<OwnedSemaphorePermit> {
    Arc::clone(&state.concurrency.validations).acquire_owned().await.context("waiting to validate")
}

async fn run_check<T: Send + 'static>(
    state: &AppState,
    file: DatasetFile,
    extra_check: impl FnOnce(&mut ValidatedDataset) -> T + Send + 'static,
) -> Result<(Report, T)> {
    let permit = acquire_permit(state).await?;
    let (settings, base) = (Arc::clone(&state.dataset_settings), Arc::clone(&state.base));
    let report = run_blocking("validating a dataset", move || {
        let _permit = permit;
        let task = match file.task {
            Some(task) => task,
            None => {
                let schema = dataset::infer_schema(&file.path, &file.options, &RowSchema::DETECTABLE, &settings)?;
                default_task(schema, &base)
            }
        };
        let truncation = token_counter(&base, &task, file.job);
        let mut checked = dataset::validate(&file.path, &file.options, &task, &truncation, &settings)?;
        let extra = extra_check(&mut checked);
        Ok((checked.report, extra))
    });
    report.await
}

/// Task of a file without one. On a base that generates no text, conversations train a classifier of their last messages.
pub(super) fn default_task(schema: RowSchema, base: &BaseModel) -> task::Config {
    match schema == RowSchema::Messages && !base.info().is_causal_lm {
        true => RowSchema::Label.default_task(),
        false => schema.default_task(),
    }
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
