//! Values of the house on their way into a row: the same for both databases. Knows no SQL.

use super::errors;
use super::model::{JobError, NewAdapter, NewDataset, NewJob, PageRequest};
use chrono::{DateTime, Utc};
use espalier_core::dataset::Options;
use espalier_core::error::{Context, Result};
use espalier_core::training::{MetricsRow, Progress};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The last row of the page before: a page begins with what is older. Rows are ordered by time, then by id.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    pub created_at: DateTime<Utc>,
    pub id: Uuid,
}

impl Cursor {
    /// `found` is when the row that `page.after` names was made.
    pub fn new(page: PageRequest, row_created_at: Option<DateTime<Utc>>) -> Result<Self> {
        let Some(id) = page.after else { return Ok(Self::START) };
        let created_at = row_created_at.ok_or_else(|| errors::unknown_cursor(id))?;
        Ok(Self { created_at, id })
    }

    /// Everything is older than this: the year 9999, which both databases can hold.
    const START: Self = Self {
        created_at: DateTime::from_timestamp_millis(253_402_300_799_000).expect("is in range"),
        id: Uuid::max(),
    };
}

/// The JSON columns of a dataset.
pub struct DatasetJsonColumns {
    pub options: Value,
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

/// The JSON columns of a job.
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

/// A progress with a number that JSON does not have (a loss that is not finite) is not stored: it could not be read back.
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

/// The data of a `metrics` event.
pub fn encode_metrics_event(row: &MetricsRow) -> Result<Value> {
    to_storable_json("a metrics row", &json!({"step": row.step, "split": row.split, "metrics": row.metrics}))
}

/// JSON that both databases can hold.
pub fn to_storable_json<T: Serialize>(field: &str, value: &T) -> Result<Value> {
    let value = serde_json::to_value(value).with_context(|| format!("writing {field} as JSON"))?;
    match contains_nul(&value) {
        true => Err(errors::nul_character(field)),
        false => Ok(value),
    }
}

/// Postgres has no U+0000 in text; what one database refuses the other must not take.
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

/// Numbers of the house are unsigned, those of SQL are not.
pub fn to_sql_integer(value: u64) -> Result<i64> {
    i64::try_from(value).with_context(|| format!("{value} is beyond what SQL can count"))
}

/// Equal options have equal hashes: their JSON has one form (fields in their order, columns sorted).
fn options_hash(options: &Options) -> Result<String> {
    let json = serde_json::to_vec(options).context("writing the dataset's options as JSON")?;
    Ok(Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect())
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
