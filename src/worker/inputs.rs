//! A job's dataset, read again from the data folder: the same bytes, read the same way, give the same examples.

use crate::store::blobs::DataDir;
use crate::store::{Claim, Dataset};
use espalier_core::dataset::{self, CountTokens, Options, TokenCount, TokenCounter};
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::{self, Example};
use espalier_core::training::TrainingData;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// # Errors
/// `Conflict`: `dataset_missing` or `dataset_damaged` where the file is not what was sent; `Invalid`
/// (`dataset_refused`) where it is not accepted any more.
pub fn load(folder: &DataDir, claim: &Claim, base: &BaseModel, settings: &dataset::Limits) -> Result<TrainingData> {
    let task = claim.job.spec.task();
    let max_length = claim.job.spec.max_length() as usize;
    let truncation = TokenCounter { tokenizer: base.tokenizer(), task, max_length };
    // What can be learned of a text that goes on depends on where it is cut; lengths of others are for the report that the owner
    // got when the dataset was sent.
    let measure: &dyn CountTokens = if task.is_generative() { &truncation } else { &NoLengths };
    let read_options = ReadOptions { task, measure, settings };
    let examples = load_examples(folder, &claim.dataset, &claim.job.options, &read_options)?;
    let validation = claim.validation_dataset.as_ref();
    // The other dataset may be a file of another format, so it is read by its own options.
    let validation = validation.map(|dataset| self::load_examples(folder, dataset, &dataset.options, &read_options));
    Ok(TrainingData { examples, validation: validation.transpose()?, source_weights: None })
}

fn load_examples(
    folder: &DataDir,
    dataset: &Dataset,
    options: &Options,
    read_options: &ReadOptions,
) -> Result<Vec<Example>> {
    let path = folder.dataset_path(&dataset.hash);
    verify_hash(&path, dataset)?;
    let checked = dataset::validate(&path, options, read_options.task, read_options.measure, read_options.settings)?;
    match checked.report.error_count {
        0 => Ok(checked.examples),
        count => {
            let first_error = checked.report.errors.first().map_or("", |finding| &finding.message);
            let detail = format!(
                "the dataset {} is not accepted any more, with {count} errors (the first: {first_error}): the server's limits, or where texts are cut, \
                 have changed since; send it again and submit the job anew",
                dataset.id
            );
            Err(Error::invalid("dataset_refused", detail))
        }
    }
}

/// How a dataset is read.
struct ReadOptions<'a> {
    task: &'a task::Config,
    measure: &'a dyn CountTokens,
    settings: &'a dataset::Limits,
}

fn verify_hash(path: &Path, dataset: &Dataset) -> Result<()> {
    let id = dataset.id;
    let advice = "send it again and submit the job anew";
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let detail = format!("the file of the dataset {id} is missing from the data folder: {advice}");
            return Err(Error::conflict("dataset_missing", detail));
        }
        result => result.with_context(|| format!("opening the dataset {id}"))?,
    };
    match sha256(file).with_context(|| format!("reading the dataset {id}"))? == dataset.hash {
        true => Ok(()),
        false => {
            let detail = format!("the file of the dataset {id} is not what was sent (its sha256 differs): {advice}");
            Err(Error::conflict("dataset_damaged", detail))
        }
    }
}

/// Hexadecimal; the file need not fit into memory.
fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Where lengths decide nothing.
struct NoLengths;

impl CountTokens for NoLengths {
    fn count_tokens(&self, _example: &Example) -> Result<Vec<TokenCount>> {
        Ok(Vec::new())
    }
}
