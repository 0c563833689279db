//! Encodes values as the JSON and the integers that both databases can store.

use crate::store::errors;
use crate::store::model::{JobError, NewAdapter, NewDataset, NewJob};
use espalier_core::dataset::Options;
use espalier_core::error::{Context, Result};
use espalier_core::training::{MetricsRow, Progress};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// JSON columns of a dataset.
pub struct DatasetJsonColumns {
    pub options: Value,
    /// sha256 of the options, hexadecimal.
    pub options_hash: String,
    pub report: Value,
}

impl DatasetJsonColumns {
    pub fn new(dataset: &NewDataset) -> Result<Self> {
        reject_nul("the file's name", dataset.file_name.as_deref())?;
        let options = to_storable_json("the dataset's options", &dataset.options)?;
        let report = to_storable_json("the dataset's report", &dataset.report)?;
        Ok(Self { options, options_hash: options_hash(&dataset.options)?, report })
    }
}

/// JSON columns of a job.
pub struct JobJsonColumns {
    pub options: Value,
    pub spec: Value,
}

impl JobJsonColumns {
    pub fn new(job: &NewJob) -> Result<Self> {
        reject_nul("the job's name", job.name.as_deref())?;
        Ok(Self {
            options: to_storable_json("the dataset's options", &job.options)?,
            spec: to_storable_json("the job's specification", &job.spec)?,
        })
    }
}

pub fn encode_description(adapter: &NewAdapter) -> Result<Value> {
    reject_nul("the adapter's name", adapter.name.as_deref())?;
    to_storable_json("the adapter's description", &adapter.description)
}

/// Returns `None` if a number is not finite (a diverged loss): JSON has no such number, so it could not be read back.
pub fn encode_progress(progress: Option<&Progress>) -> Result<Option<Value>> {
    let finite = progress.filter(|progress| {
        [progress.epoch, progress.train_loss, progress.examples_per_second, progress.eta_seconds]
            .iter()
            .all(|number| number.is_finite())
    });
    finite.map(|progress| to_storable_json("the job's progress", progress)).transpose()
}

pub fn encode_error(error: Option<&JobError>) -> Result<Option<Value>> {
    error.map(|error| to_storable_json("the job's error", error)).transpose()
}

/// Data of a `metrics` event.
pub fn encode_metrics_event(row: &MetricsRow) -> Result<Value> {
    to_storable_json("a metrics row", &json!({"step": row.step, "split": row.split, "metrics": row.metrics}))
}

/// # Errors
/// `Invalid` (`nul_character`) if a string or a key contains U+0000.
pub fn to_storable_json<T: Serialize>(field: &str, value: &T) -> Result<Value> {
    let value = serde_json::to_value(value).with_context(|| format!("writing {field} as JSON"))?;
    match contains_nul(&value) {
        true => Err(errors::nul_character(field)),
        false => Ok(value),
    }
}

/// Rejects U+0000 in text. Postgres cannot store it, and both databases accept the same values.
pub fn reject_nul(field: &str, text: Option<&str>) -> Result<()> {
    match text.is_some_and(|text| text.contains('\0')) {
        true => Err(errors::nul_character(field)),
        false => Ok(()),
    }
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || contains_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// SQL integers are signed.
pub fn to_sql_integer(value: u64) -> Result<i64> {
    i64::try_from(value).with_context(|| format!("{value} is too large for an SQL integer"))
}

/// Equal options have equal hashes, because their JSON is canonical: fields in declaration order, columns sorted.
fn options_hash(options: &Options) -> Result<String> {
    let json = serde_json::to_vec(options).context("writing the dataset's options as JSON")?;
    Ok(hex::encode(Sha256::digest(json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_nul_checks_keys_and_values() {
        assert!(contains_nul(&json!({"a": [{"b\0": 1}]})));
        assert!(contains_nul(&json!({"a": ["b\0"]})));
        assert!(!contains_nul(&json!({"a": ["\\u0000", 0, null]})));
    }
}
