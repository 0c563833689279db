//! Looking into a dataset: the only place where this room calls the data room.
//!
//! Knows nothing of jobs or of where the file came from.

use super::state::State;
use super::work::aside;
use espalier_core::data::{self, Checked, Format, Options, Report, Truncation};
use espalier_core::error::{Context, Error, Problem, Result};
use espalier_core::task::{self, Shape};
use espalier_core::training::Hyperparameters;
use std::path::PathBuf;
use std::sync::Arc;

/// A file and how it is to be read.
pub struct File {
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
pub async fn dataset(state: &State, file: File) -> Result<Report> {
    accepted(look(state, file, |_| {}).await?)
}

/// The same for a validation dataset of a training dataset with these labels.
///
/// # Errors
/// `Invalid` with the bad rows.
pub async fn validation(state: &State, file: File, labels: Vec<String>) -> Result<Report> {
    let report = look(state, file, move |checked| data::check_validation(checked, &labels)).await?;
    accepted(report).map_err(|error| match error {
        Error::Invalid(problem) => {
            let detail = format!("the validation dataset: {}", problem.detail);
            Error::Invalid(Problem { detail, ..problem })
        }
        error => error,
    })
}

async fn look(state: &State, file: File, also: impl FnOnce(&mut Checked) + Send + 'static) -> Result<Report> {
    let turn = Arc::clone(&state.turns.checks).acquire_owned().await.context("waiting to check a dataset")?;
    let (settings, base) = (Arc::clone(&state.data), Arc::clone(&state.base));
    let report = aside("checking a dataset", move || {
        let _turn = turn;
        let task = match file.task {
            Some(task) => task,
            None => data::guess(&file.path, &file.options, &Shape::TOLD)?.task(),
        };
        // a length that the base does not allow is refused later, with the job's other settings
        let longest = base.info().max_tokens;
        let usual = task.usual().length;
        let max_length = match &file.hyperparameters {
            Some(hyperparameters) => (hyperparameters.max_length(usual, longest) as usize).min(longest),
            // The job that will use it may say any.
            None if task.generates() => longest,
            None => usual.min(longest),
        };
        let measure = Truncation { tokenizer: base.tokenizer(), task: &task, max_length };
        let mut checked = data::check(&file.path, &file.options, &task, &measure, &settings)?;
        also(&mut checked);
        Ok(checked.report)
    });
    report.await
}

fn accepted(report: Report) -> Result<Report> {
    match report.refusal() {
        Some(refusal) => Err(refusal),
        None => Ok(report),
    }
}

/// The format that was given, or else what the file's name or content type says.
///
/// # Errors
/// `Invalid` where nothing says it.
pub fn format(given: Option<Format>, file_name: Option<&str>, content_type: Option<&str>) -> Result<Format> {
    given.or_else(|| Format::guess(file_name, content_type)).ok_or_else(|| {
        Error::invalid(
            "unknown_format",
            "neither the file's name nor its content type says what it is: give \"format\": \"csv\", \"tsv\" or \"jsonl\"",
        )
    })
}
