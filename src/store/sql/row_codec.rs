//! Decodes rows of both databases into the types of `model`, and encodes values as the JSON and the integers that both can store.

use super::database_error::Context;
use crate::store::errors;
use crate::store::job_state_machine::JobState;
use crate::store::model::{
    Adapter, Dataset, Event, EventKind, Job, JobError, JobWorker, NewAdapter, NewDataset, NewJob, RequestedAction,
    Status,
};
use chrono::{DateTime, Utc};
use espalier_core::dataset::Options;
use espalier_core::error::{Error, Result};
use espalier_core::training::{MetricsRow, Progress};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{ColumnIndex, Decode, Type};
use std::num::TryFromIntError;
use uuid::Uuid;

/// Reads the columns of a row. The `opt_` methods return `None` for a null; the others return an error.
pub trait DecodeRow {
    fn opt_uuid(&self, column: &str) -> Result<Option<Uuid>>;
    fn opt_text(&self, column: &str) -> Result<Option<String>>;
    fn opt_integer(&self, column: &str) -> Result<Option<i64>>;
    fn opt_timestamp(&self, column: &str) -> Result<Option<DateTime<Utc>>>;
    fn opt_json(&self, column: &str) -> Result<Option<Value>>;

    fn uuid(&self, column: &str) -> Result<Uuid> {
        require_not_null(self.opt_uuid(column)?, column)
    }

    fn text(&self, column: &str) -> Result<String> {
        require_not_null(self.opt_text(column)?, column)
    }

    fn integer(&self, column: &str) -> Result<i64> {
        require_not_null(self.opt_integer(column)?, column)
    }

    fn timestamp(&self, column: &str) -> Result<DateTime<Utc>> {
        require_not_null(self.opt_timestamp(column)?, column)
    }
}

/// Reads a column whose type sqlx decodes.
pub fn get<'r, R, T>(row: &'r R, column: &str) -> Result<T>
where
    R: sqlx::Row,
    T: Decode<'r, R::Database> + Type<R::Database>,
    for<'c> &'c str: ColumnIndex<R>,
{
    row.try_get(column).with_context(|| format!("reading the column {column}"))
}

/// Reads the column `id` of a row that may be missing.
pub fn decode_id(row: Option<&impl DecodeRow>) -> Result<Option<Uuid>> {
    row.map(|row| row.uuid("id")).transpose()
}

pub fn decode_dataset(row: &impl DecodeRow) -> Result<Dataset> {
    Ok(Dataset {
        id: row.uuid("id")?,
        owner: row.text("owner")?,
        file_name: row.opt_text("file_name")?,
        hash: row.text("hash")?,
        bytes: decode_u64(row, "bytes")?,
        options: decode_json(row, "options")?,
        report: decode_json(row, "report")?,
        created_at: row.timestamp("created_at")?,
    })
}

pub fn decode_job(row: &impl DecodeRow) -> Result<Job> {
    Ok(Job {
        id: row.uuid("id")?,
        owner: row.text("owner")?,
        name: row.opt_text("name")?,
        status: decode_status(row)?,
        requested_action: decode_requested_action(row)?,
        dataset_id: row.uuid("dataset_id")?,
        validation_dataset_id: row.opt_uuid("validation_dataset_id")?,
        options: decode_json(row, "options")?,
        spec: decode_json(row, "spec")?,
        metadata: decode_json(row, "metadata")?,
        created_by: row.opt_text("created_by")?,
        priority: decode_integer(row, "priority")?,
        progress: decode_opt_json(row, "progress")?,
        metrics: row.opt_json("metrics")?,
        adapter_id: row.opt_uuid("adapter_id")?,
        error: decode_opt_json(row, "error")?,
        attempt: decode_integer(row, "attempt")?,
        next_attempt_at: row.opt_timestamp("next_attempt_at")?,
        worker: decode_job_worker(row)?,
        created_at: row.timestamp("created_at")?,
        started_at: row.opt_timestamp("started_at")?,
        finished_at: row.opt_timestamp("finished_at")?,
        trace_context: row.opt_text("trace_context")?,
    })
}

fn decode_job_worker(row: &impl DecodeRow) -> Result<Option<JobWorker>> {
    let instance_id = row.opt_uuid("worker_instance")?;
    let process_id = row.opt_uuid("worker_process")?;
    Ok(match (instance_id, process_id, row.opt_timestamp("lease_expires_at")?) {
        (Some(instance_id), Some(process_id), Some(lease_expires_at)) => {
            Some(JobWorker { instance_id, process_id, lease_expires_at })
        }
        _ => None,
    })
}

pub fn decode_job_state(row: &impl DecodeRow) -> Result<JobState> {
    Ok(JobState {
        id: row.uuid("id")?,
        lease_epoch: row.integer("lease_epoch")?,
        status: decode_status(row)?,
        requested_action: decode_requested_action(row)?,
        attempt: decode_integer(row, "attempt")?,
        process_deaths: decode_integer(row, "process_deaths")?,
        internal_errors: decode_integer(row, "internal_errors")?,
        worker_process: row.opt_uuid("worker_process")?,
    })
}

pub fn decode_event(row: &impl DecodeRow) -> Result<Event> {
    let kind = row.text("kind")?;
    Ok(Event {
        sequence: row.integer("sequence")?,
        kind: EventKind::parse(&kind).ok_or_else(|| unknown_value("kind", &kind))?,
        data: require_not_null(row.opt_json("data")?, "data")?,
        created_at: row.timestamp("created_at")?,
    })
}

pub fn decode_adapter(row: &impl DecodeRow) -> Result<Adapter> {
    Ok(Adapter {
        id: row.uuid("id")?,
        owner: row.text("owner")?,
        name: row.opt_text("name")?,
        job_id: row.opt_uuid("job_id")?,
        description: decode_json(row, "description")?,
        is_current: row.integer("pointing_names")? > 0,
        created_at: row.timestamp("created_at")?,
    })
}

pub fn decode_status(row: &impl DecodeRow) -> Result<Status> {
    let name = row.text("status")?;
    Status::parse(&name).ok_or_else(|| unknown_value("status", &name))
}

/// Returns the number of jobs of every status. `rows` has no row for a status without jobs.
pub fn decode_job_counts(rows: &[impl DecodeRow]) -> Result<Vec<(Status, u64)>> {
    let counts: Vec<(Status, u64)> =
        rows.iter().map(|row| Ok((decode_status(row)?, decode_u64(row, "jobs")?))).collect::<Result<_>>()?;
    let count_of = |status| counts.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, jobs)| *jobs);
    Ok(Status::ALL.into_iter().map(|status| (status, count_of(status))).collect())
}

pub fn decode_requested_action(row: &impl DecodeRow) -> Result<Option<RequestedAction>> {
    let name = row.opt_text("requested_action")?;
    name.map(|name| RequestedAction::parse(&name).ok_or_else(|| unknown_value("requested_action", &name))).transpose()
}

/// # Errors
/// If the number is negative.
pub fn decode_u64(row: &impl DecodeRow, column: &str) -> Result<u64> {
    decode_integer(row, column)
}

pub fn decode_integer<T: TryFrom<i64, Error = TryFromIntError>>(row: &impl DecodeRow, column: &str) -> Result<T> {
    T::try_from(row.integer(column)?).with_context(|| format!("reading the column {column}"))
}

pub fn decode_json<T: DeserializeOwned>(row: &impl DecodeRow, column: &str) -> Result<T> {
    require_not_null(decode_opt_json(row, column)?, column)
}

pub fn decode_opt_json<T: DeserializeOwned>(row: &impl DecodeRow, column: &str) -> Result<Option<T>> {
    let value = row.opt_json(column)?;
    value.map(serde_json::from_value).transpose().with_context(|| format!("reading the JSON in the column {column}"))
}

fn require_not_null<T>(value: Option<T>, column: &str) -> Result<T> {
    value.ok_or_else(|| Error::internal(format!("the column {column} is null, but it must not be")))
}

fn unknown_value(column: &str, value: &str) -> Error {
    Error::internal(format!("the column {column} holds \"{value}\", which this version does not support"))
}

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
    pub metadata: Value,
}

impl JobJsonColumns {
    pub fn new(job: &NewJob) -> Result<Self> {
        reject_nul("the job's name", job.name.as_deref())?;
        Ok(Self {
            options: to_storable_json("the dataset's options", &job.options)?,
            spec: to_storable_json("the job's specification", &job.spec)?,
            metadata: to_storable_json("the job's metadata", &job.metadata)?,
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
