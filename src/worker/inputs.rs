//! Inputs of a job: its datasets and the adapter that it starts from, read from the data folder and verified.

use crate::store::blobs::{BlobStore, digest};
use crate::store::{BlobKind, ClaimedJob, Dataset};
use espalier_core::artifact::probe;
use espalier_core::dataset::{self, CountTokens, MaxLength, NoLengths, Options, TokenCounter};
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::{self, Example};
use espalier_core::training::{Plan, SourceWeights, TrainingData, Validation};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where the inputs of a job are in the data folder.
pub struct InputPaths {
    dataset: PathBuf,
    validation: Option<PathBuf>,
    /// Contains the folder of the version that the job starts from.
    adapters: PathBuf,
}

impl InputPaths {
    /// Downloads what is not in the data folder.
    pub async fn fetch(blobs: &BlobStore, claim: &ClaimedJob) -> Result<Self> {
        let validation = match validation_dataset(claim) {
            Some((dataset, _)) => Some(blobs.dataset(&dataset.hash).await?),
            None => None,
        };
        let adapters = match claim.job.spec.from_adapter() {
            Some(source) => blobs.adapters_dir(&source.version).await?,
            None => PathBuf::new(),
        };
        Ok(Self { dataset: blobs.dataset(&claim.dataset.hash).await?, validation, adapters })
    }
}

/// Moves damaged inputs away, so that they are downloaded again. Returns false if there is no other copy of them.
pub async fn quarantine(blobs: &BlobStore, claim: &ClaimedJob) -> Result<bool> {
    let datasets = [Some(&claim.dataset), claim.validation_dataset.as_ref()];
    let datasets = datasets.into_iter().flatten().map(|dataset| (BlobKind::Dataset, &dataset.hash));
    let adapters = claim.job.spec.from_adapter().map(|source| (BlobKind::Adapter, &source.version));
    let mut has_copies = false;
    for (kind, name) in datasets.chain(adapters) {
        has_copies |= blobs.quarantine(kind, name).await?;
    }
    Ok(has_copies)
}

/// Reads everything that training needs. Equal files and options give equal examples, so a repeated attempt trains on the
/// same data.
///
/// # Errors
/// `Conflict` (`dataset_missing`, `dataset_damaged`) if a dataset's file is not the one that was sent, or if the source adapter
/// is damaged; `Invalid` (`dataset_refused`) if a dataset is no longer accepted.
pub fn load(
    paths: &InputPaths,
    claim: &ClaimedJob,
    base: &BaseModel,
    limits: &dataset::Limits,
) -> Result<TrainingData> {
    let source_weights = load_source(&paths.adapters, &claim.job.spec, base)?;
    let task = claim.job.spec.task();
    let max_length = MaxLength::Fixed(claim.job.spec.max_length() as usize);
    let longest = base.info().max_tokens;
    let tokenized = TokenCounter { tokenizer: base.tokenizer(), task, max_length, longest };
    // Truncation can leave a generative example without anything to learn. For the other tasks lengths only matter for the
    // report, which the owner got at the upload.
    let token_counter: &dyn CountTokens = if task.is_generative() { &tokenized } else { &NoLengths };
    let read_options = ReadOptions { task, token_counter, limits };
    let examples = load_examples(&paths.dataset, &claim.dataset, &claim.job.options, &read_options)?;
    let validation = validation_dataset(claim)
        .zip(paths.validation.as_deref())
        .map(|((dataset, options), path)| load_examples(path, dataset, &options, &read_options))
        .transpose()?;
    Ok(TrainingData { examples, validation, source_weights })
}

/// Dataset of the validation examples and how it is read; `None` for a share of the training examples.
fn validation_dataset(claim: &ClaimedJob) -> Option<(&Dataset, Options)> {
    match claim.job.spec.validation() {
        Validation::Split(split) => Some((&claim.dataset, claim.job.options.with_split(*split))),
        // It may have another format, so it has its own options.
        Validation::DatasetId(_) | Validation::Fraction(_) => {
            claim.validation_dataset.as_ref().map(|dataset| (dataset, dataset.options.clone()))
        }
    }
}

fn load_examples(
    path: &Path,
    dataset: &Dataset,
    options: &Options,
    read_options: &ReadOptions,
) -> Result<Vec<Example>> {
    verify_hash(path, dataset)?;
    let checked = dataset::validate(path, options, read_options.task, read_options.token_counter, read_options.limits)?;
    match checked.report.error_count {
        0 => Ok(checked.examples),
        count => {
            let first_error = checked.report.errors.first().map_or("", |error| &error.message);
            let detail = format!(
                "the dataset {} is not accepted any more, with {count} errors (the first: {first_error}): the server's limits, or where texts are cut, \
                 have changed since; send it again and submit the job anew",
                dataset.id
            );
            Err(Error::invalid("dataset_refused", detail))
        }
    }
}

/// How both datasets are read.
struct ReadOptions<'a> {
    task: &'a task::Config,
    token_counter: &'a dyn CountTokens,
    limits: &'a dataset::Limits,
}

fn verify_hash(path: &Path, dataset: &Dataset) -> Result<()> {
    let id = dataset.id;
    let advice = "send it again and submit the job anew";
    let found = match digest(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let detail = format!("the file of the dataset {id} is missing from the data folder: {advice}");
            return Err(Error::conflict("dataset_missing", detail));
        }
        result => result.with_context(|| format!("reading the dataset {id}"))?,
    };
    match found.sha256 == dataset.hash {
        true => Ok(()),
        false => {
            let detail = format!("the file of the dataset {id} is not what was sent (its sha256 differs): {advice}");
            Err(Error::conflict("dataset_damaged", detail))
        }
    }
}

/// Weights of the adapter that the job starts from; `None` for a job that starts from the base.
///
/// # Errors
/// `Conflict` if the adapter's files are damaged, belong to another base, or do not reproduce the probe's outputs.
fn load_source(adapters: &Path, plan: &Plan, base: &BaseModel) -> Result<Option<SourceWeights>> {
    let Some(source) = plan.from_adapter() else { return Ok(None) };
    let (artifact, _) = probe::load_verified(adapters, &source.version, base)?;
    Ok(Some(SourceWeights { labels: artifact.manifest.labels, weights: artifact.weights }))
}
