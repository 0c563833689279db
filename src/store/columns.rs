//! Rows of either database become values of the house.
//!
//! Each database implements [`Columns`] once; the mapping is the same for both. Knows no SQL.

use super::model::{Adapter, Dataset, Event, EventKind, Job, Status, Wish};
use super::moves::Held;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

/// The kinds of column that the tables have, each of which may be null.
pub trait Columns {
    fn id_or_null(&self, column: &str) -> Result<Option<Uuid>>;
    fn text_or_null(&self, column: &str) -> Result<Option<String>>;
    fn integer_or_null(&self, column: &str) -> Result<Option<i64>>;
    fn time_or_null(&self, column: &str) -> Result<Option<DateTime<Utc>>>;
    fn value_or_null(&self, column: &str) -> Result<Option<Value>>;

    fn id(&self, column: &str) -> Result<Uuid> {
        present(self.id_or_null(column)?, column)
    }

    fn text(&self, column: &str) -> Result<String> {
        present(self.text_or_null(column)?, column)
    }

    fn integer(&self, column: &str) -> Result<i64> {
        present(self.integer_or_null(column)?, column)
    }

    fn time(&self, column: &str) -> Result<DateTime<Utc>> {
        present(self.time_or_null(column)?, column)
    }
}

pub fn dataset(row: &impl Columns) -> Result<Dataset> {
    Ok(Dataset {
        id: row.id("id")?,
        owner: row.text("owner")?,
        file_name: row.text_or_null("file_name")?,
        hash: row.text("hash")?,
        bytes: count(row, "bytes")?,
        options: json(row, "options")?,
        report: json(row, "report")?,
        created_at: row.time("created_at")?,
    })
}

pub fn job(row: &impl Columns) -> Result<Job> {
    Ok(Job {
        id: row.id("id")?,
        owner: row.text("owner")?,
        name: row.text_or_null("name")?,
        status: status(row)?,
        wish: wish(row)?,
        dataset_id: row.id("dataset_id")?,
        validation_dataset_id: row.id_or_null("validation_dataset_id")?,
        options: json(row, "options")?,
        spec: json(row, "spec")?,
        progress: json_or_null(row, "progress")?,
        metrics: row.value_or_null("metrics")?,
        adapter_id: row.id_or_null("adapter_id")?,
        error: json_or_null(row, "error")?,
        attempt: small_count(row, "attempt")?,
        created_at: row.time("created_at")?,
        started_at: row.time_or_null("started_at")?,
        finished_at: row.time_or_null("finished_at")?,
    })
}

pub fn held(row: &impl Columns) -> Result<Held> {
    Ok(Held {
        id: row.id("id")?,
        epoch: row.integer("lease_epoch")?,
        status: status(row)?,
        wish: wish(row)?,
        attempt: small_count(row, "attempt")?,
        fruitless: small_count(row, "fruitless")?,
    })
}

pub fn event(row: &impl Columns) -> Result<Event> {
    let kind = row.text("kind")?;
    Ok(Event {
        sequence: row.integer("sequence")?,
        kind: EventKind::parse(&kind).ok_or_else(|| unknown("kind", &kind))?,
        data: present(row.value_or_null("data")?, "data")?,
        created_at: row.time("created_at")?,
    })
}

pub fn adapter(row: &impl Columns) -> Result<Adapter> {
    Ok(Adapter {
        id: row.id("id")?,
        owner: row.text("owner")?,
        name: row.text_or_null("name")?,
        job_id: row.id_or_null("job_id")?,
        description: json(row, "description")?,
        created_at: row.time("created_at")?,
    })
}

pub fn status(row: &impl Columns) -> Result<Status> {
    let name = row.text("status")?;
    Status::parse(&name).ok_or_else(|| unknown("status", &name))
}

/// Every status with its number of jobs, from rows that have none for a status without jobs.
pub fn job_counts(rows: &[impl Columns]) -> Result<Vec<(Status, u64)>> {
    let counted: Vec<(Status, u64)> =
        rows.iter().map(|row| Ok((status(row)?, count(row, "jobs")?))).collect::<Result<_>>()?;
    let of = |status| counted.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, jobs)| *jobs);
    Ok(Status::ALL.into_iter().map(|status| (status, of(status))).collect())
}

pub fn wish(row: &impl Columns) -> Result<Option<Wish>> {
    let name = row.text_or_null("wish")?;
    name.map(|name| Wish::parse(&name).ok_or_else(|| unknown("wish", &name))).transpose()
}

/// A number that cannot be negative.
pub fn count(row: &impl Columns, column: &str) -> Result<u64> {
    u64::try_from(row.integer(column)?).with_context(|| format!("reading the column {column}"))
}

fn small_count(row: &impl Columns, column: &str) -> Result<u32> {
    u32::try_from(row.integer(column)?).with_context(|| format!("reading the column {column}"))
}

fn json<T: DeserializeOwned>(row: &impl Columns, column: &str) -> Result<T> {
    present(json_or_null(row, column)?, column)
}

fn json_or_null<T: DeserializeOwned>(row: &impl Columns, column: &str) -> Result<Option<T>> {
    let value = row.value_or_null(column)?;
    value.map(serde_json::from_value).transpose().with_context(|| format!("reading the JSON in the column {column}"))
}

fn present<T>(value: Option<T>, column: &str) -> Result<T> {
    value.ok_or_else(|| Error::internal(format!("the column {column} is null, which it must never be")))
}

fn unknown(column: &str, word: &str) -> Error {
    Error::internal(format!("the column {column} holds \"{word}\", which this version does not know"))
}
