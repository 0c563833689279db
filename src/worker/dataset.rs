//! A job's dataset, read again from the data folder: the same bytes, read the same way, give the same examples.

use crate::store::blobs::DataFolder;
use crate::store::{Claim, Dataset};
use espalier_core::data::{self, Length, Measure, Options, Truncation};
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::Base;
use espalier_core::model::weights::hex;
use espalier_core::task::{self, Example};
use espalier_core::training::Data;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// # Errors
/// `Conflict`: `dataset_missing` or `dataset_damaged` where the file is not what was sent; `Invalid`
/// (`dataset_refused`) where it is not accepted any more.
pub fn read(folder: &DataFolder, claim: &Claim, base: &Base, settings: &data::Settings) -> Result<Data> {
    let task = claim.job.spec.task();
    let max_length = claim.job.spec.max_length() as usize;
    let truncation = Truncation { tokenizer: base.tokenizer(), task, max_length };
    // What can be learned of a text that goes on depends on where it is cut; lengths of others are for the report that the owner
    // got when the dataset was sent.
    let measure: &dyn Measure = if task.generates() { &truncation } else { &Unmeasured };
    let rules = Rules { task, measure, settings };
    let examples = examples(folder, &claim.dataset, &claim.job.options, &rules)?;
    let validation = claim.validation_dataset.as_ref();
    // The other dataset may be a file of another format, so it is read by its own options.
    let validation = validation.map(|dataset| self::examples(folder, dataset, &dataset.options, &rules));
    Ok(Data { examples, validation: validation.transpose()?, source: None })
}

fn examples(folder: &DataFolder, dataset: &Dataset, options: &Options, rules: &Rules) -> Result<Vec<Example>> {
    let path = folder.dataset(&dataset.hash);
    verify(&path, dataset)?;
    let checked = data::check(&path, options, rules.task, rules.measure, rules.settings)?;
    match checked.report.error_count {
        0 => Ok(checked.examples),
        count => {
            let first = checked.report.errors.first().map_or("", |finding| &finding.message);
            let detail = format!(
                "the dataset {} is not accepted any more, with {count} errors (the first: {first}): the server's limits, or where texts are cut, \
                 have changed since; send it again and submit the job anew",
                dataset.id
            );
            Err(Error::invalid("dataset_refused", detail))
        }
    }
}

/// How a dataset is read.
struct Rules<'a> {
    task: &'a task::Config,
    measure: &'a dyn Measure,
    settings: &'a data::Settings,
}

fn verify(path: &Path, dataset: &Dataset) -> Result<()> {
    let id = dataset.id;
    let advice = "send it again and submit the job anew";
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let detail = format!("the file of the dataset {id} is missing from the data folder: {advice}");
            return Err(Error::conflict("dataset_missing", detail));
        }
        opened => opened.with_context(|| format!("opening the dataset {id}"))?,
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
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Where lengths decide nothing.
struct Unmeasured;

impl Measure for Unmeasured {
    fn measure(&self, _example: &Example) -> Result<Vec<Length>> {
        Ok(Vec::new())
    }
}
