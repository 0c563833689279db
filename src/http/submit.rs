//! The steps from a request to a queued job: check, refuse or resolve, keep the file, add the rows.
//!
//! Until the last step everything is temporary: whatever is refused, and whoever goes away, leaves nothing behind. The
//! last step runs to its end even if the client is gone. Knows nothing of handlers.

use super::check;
use super::datasets;
use super::error::Answer;
use super::from_adapter;
use super::jobs::{JobRequest, Validated};
use super::state::State;
use super::upload::Upload;
use super::work::to_the_end;
use crate::store::{Dataset, Job, NewJob};
use espalier_core::data::{Format, Options, Report};
use espalier_core::error::{Error, Fault, Place, Result};
use espalier_core::task::Shape;
use espalier_core::training::race::Auto;
use espalier_core::training::spec::{self, Spec};
use espalier_core::training::warm_start::{self, Origin};
use espalier_core::training::{Method, Plan, Race, Validation};
use uuid::Uuid;

/// What came in: the request and where its examples are.
pub struct Submission {
    pub request: JobRequest,
    pub source: Source,
}

pub enum Source {
    /// A file that came with the request.
    File(Upload),
    /// Inline examples, written to a file.
    Inline(Upload),
    /// A dataset that is here already.
    Stored(Uuid),
}

/// A submission that nothing speaks against.
struct Examined {
    name: Option<String>,
    kept: Kept,
    options: Options,
    report: Report,
    spec: Plan,
    validation_dataset_id: Option<Uuid>,
}

enum Kept {
    New(Upload),
    Stored(Box<Dataset>),
}

/// Queues the job.
///
/// # Errors
/// `Invalid` for the request or its rows, `NotFound` for a dataset, `Busy` where too many jobs are queued.
pub async fn submit(state: &State, owner: &str, submission: Submission) -> Answer<Job> {
    let examined = examine(state, owner, submission).await?;
    let (state, owner) = (state.clone(), owner.to_string());
    Ok(to_the_end("queueing a job", async move { keep(&state, &owner, examined).await }).await?)
}

/// Says what would happen, and keeps nothing.
///
/// # Errors
/// As [`submit`].
pub async fn validate(state: &State, owner: &str, submission: Submission) -> Answer<Validated> {
    let Examined { options, report, spec, .. } = examine(state, owner, submission).await?;
    Ok(Validated { options, report, spec })
}

async fn examine(state: &State, owner: &str, submission: Submission) -> Result<Examined> {
    let Submission { request, source } = submission;
    let name = request.name.clone().map(super::names::Name::into_string);
    let origin = match &request.from_adapter {
        Some(adapter) => Some(from_adapter::find(state, owner, adapter).await?),
        None => None,
    };
    let mut request = request;
    if let (None, Some(origin)) = (request.hyperparameters.max_length, &origin) {
        request.hyperparameters.max_length = u32::try_from(origin.max_length).ok();
    }
    let (kept, options, report) = look(state, owner, &request, source).await?;
    let found: Vec<String> = report.labels.iter().map(|count| count.label.clone()).collect();
    let labels = request.task.clone().unwrap_or_else(|| report.target.task()).labels(&found);
    let validation_dataset_id = match request.validation {
        Some(Validation::DatasetId(id)) => {
            Some(check_validation(state, owner, id, &request, report.target, labels.clone()).await?)
        }
        Some(Validation::Fraction(_)) | None => None,
    };
    let examples = examples(&report, &request, state);
    let (auto, asked) = asked(request, report.target, origin);
    let spec = match auto {
        Some(auto) => {
            let race = Race::resolve(&auto, &asked, &labels, examples, &state.base, state.settings.max_candidates)?;
            Plan::Race(Box::new(race))
        }
        None => Spec::resolve(&asked, &labels, examples, &state.base)?.into(),
    };
    Ok(Examined { name, kept, options, report, spec, validation_dataset_id })
}

/// Examples that training will have: plain texts that go on share them, or have several.
fn examples(report: &Report, request: &JobRequest, state: &State) -> usize {
    let task = request.task.clone().unwrap_or_else(|| report.target.task());
    let rows = usize::try_from(report.examples).unwrap_or(usize::MAX);
    match task.generates() && report.target == Shape::Text {
        false => rows,
        true => {
            let longest = state.base.info().max_tokens;
            let length = request.hyperparameters.max_length(task.usual().length, longest).max(1);
            usize::try_from(report.lengths.tokens.div_ceil(u64::from(length))).unwrap_or(usize::MAX)
        }
    }
}

/// Whether it is a race, and the rest: the data's own task where the request names none, as the adapter has it where that is
/// the same.
fn asked(request: JobRequest, target: Shape, from_adapter: Option<Origin>) -> (Option<Auto>, spec::Request) {
    let JobRequest { task, method, hyperparameters, validation, samples, .. } = request;
    let own = || from_adapter.as_ref().map_or_else(|| target.task(), |origin| warm_start::task(origin, target));
    let task = Some(task.map_or_else(own, |task| task.on(target)));
    let (auto, method) = match method {
        Some(Method::Auto(auto)) => (Some(auto), None),
        Some(Method::One(method)) => (None, Some(method)),
        None => (None, None),
    };
    (auto, spec::Request { task, method, hyperparameters, validation, from_adapter, samples })
}

/// Finds the examples and checks them; a stored dataset only where it is to be read otherwise than before.
async fn look(state: &State, owner: &str, request: &JobRequest, source: Source) -> Result<(Kept, Options, Report)> {
    let task = request.task.clone();
    let hyperparameters = request.hyperparameters.clone();
    let check = |path, options| {
        let task = task.clone();
        check::dataset(state, check::File { path, options, task, hyperparameters: Some(hyperparameters) })
    };
    match source {
        Source::File(upload) => {
            let origin = &upload.origin;
            let format = check::format(request.format, origin.file_name.as_deref(), origin.content_type.as_deref())?;
            let options = options(request, format);
            let report = check(upload.path().to_path_buf(), options.clone()).await?;
            Ok((Kept::New(upload), options, report))
        }
        Source::Inline(upload) => {
            let options = options(request, Format::Jsonl);
            let report = check(upload.path().to_path_buf(), options.clone()).await.map_err(to_pointers)?;
            Ok((Kept::New(upload), options, report))
        }
        Source::Stored(id) => {
            let dataset = state.store.dataset(owner, id).await?;
            let options = reread(request, &dataset.options);
            let is_same_task = task.as_ref().is_none_or(|task| task.shapes().contains(&dataset.report.target));
            // What can be learned of a text that goes on depends on where this job cuts it.
            let meant = task.clone().unwrap_or_else(|| dataset.report.target.task());
            let is_same_task = is_same_task && !meant.generates();
            let report = match options == dataset.options && is_same_task {
                true => dataset.report.clone(),
                false => check(state.folder.dataset(&dataset.hash), options.clone()).await?,
            };
            Ok((Kept::Stored(Box::new(dataset)), options, report))
        }
    }
}

fn options(request: &JobRequest, format: Format) -> Options {
    let columns = request.columns.clone().unwrap_or_default();
    Options { format, columns, on_bad_rows: request.on_bad_rows.unwrap_or_default() }
}

/// What the request leaves out stays as it was when the dataset was uploaded.
fn reread(request: &JobRequest, before: &Options) -> Options {
    Options {
        format: request.format.unwrap_or(before.format),
        columns: request.columns.clone().unwrap_or_else(|| before.columns.clone()),
        on_bad_rows: request.on_bad_rows.unwrap_or(before.on_bad_rows),
    }
}

/// A validation set is read as it was when it was uploaded; it may not have labels that nothing teaches.
async fn check_validation(
    state: &State,
    owner: &str,
    id: Uuid,
    request: &JobRequest,
    target: Shape,
    labels: Vec<String>,
) -> Result<Uuid> {
    let dataset = state.store.dataset(owner, id).await?;
    let file = check::File {
        path: state.folder.dataset(&dataset.hash),
        options: dataset.options,
        task: Some(request.task.clone().unwrap_or_else(|| target.task())),
        hyperparameters: Some(request.hyperparameters.clone()),
    };
    check::validation(state, file, labels).await.map(|_| id)
}

/// Inline examples have no lines, but places in the request.
fn to_pointers(error: Error) -> Error {
    let Error::Invalid(mut problem) = error else { return error };
    for fault in &mut problem.faults {
        if let Place::Line(line) = fault.place {
            *fault =
                Fault::at_pointer(format!("/examples/{}", line.saturating_sub(1)), std::mem::take(&mut fault.message));
        }
    }
    Error::Invalid(problem)
}

/// File first, rows after it.
async fn keep(state: &State, owner: &str, examined: Examined) -> Result<Job> {
    let Examined { name, kept, options, report, spec, validation_dataset_id } = examined;
    let (dataset, stored) = match kept {
        Kept::Stored(dataset) => (*dataset, datasets::Stored::Before),
        Kept::New(upload) => datasets::keep(state, owner, upload, options.clone(), report).await?,
    };
    let dataset_id = dataset.id;
    let job =
        NewJob { id: Uuid::now_v7(), owner: owner.to_string(), name, dataset_id, validation_dataset_id, options, spec };
    match state.store.add_job(job, state.settings.max_queued).await {
        Ok(job) => {
            (state.wake)();
            Ok(job)
        }
        Err(error) => {
            if stored == datasets::Stored::Now {
                datasets::discard(state, owner, dataset_id).await;
            }
            Err(error)
        }
    }
}
