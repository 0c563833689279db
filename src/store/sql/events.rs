//! Statements on the events of a job.
//!
//! The sequence numbers come from the job's row. A writer locks that row first, so a reader never sees an event before
//! an earlier one.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, Param, params};
use super::row_codec::{self, encode_metrics_event, to_sql_integer};
use crate::store::changes::Change;
use crate::store::model::Event;
use espalier_core::error::Result;
use espalier_core::training::MetricsRow;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

/// Largest number of metrics rows in one statement. SQLite allows 32,766 parameters.
const ROWS_PER_STATEMENT: usize = 500;

/// Placeholders of one metrics row: sequence, step, split, data.
const PARAMS_PER_ROW: usize = 4;

pub async fn insert_status<D: Dialect>(
    transaction: &mut Transaction<D>,
    job: Uuid,
    sequence: i64,
    data: &Value,
) -> Result<()> {
    let sql = "insert into events (job_id, sequence, kind, data, created_at)
               values ($1, $2, 'status', $3, (select now from db_now))";
    transaction.execute(sql, params![job, sequence, data]).await.context("adding a status event")?;
    transaction.record_change(Change::JobEvent(job));
    Ok(())
}

/// Adds metrics rows with consecutive sequence numbers from `first_sequence`. A row that exists already keeps its old
/// content and leaves a gap in the sequence.
pub async fn insert_metrics<D: Dialect>(
    transaction: &mut Transaction<D>,
    job: Uuid,
    first_sequence: i64,
    rows: &[MetricsRow],
) -> Result<()> {
    let sequences: Vec<i64> = (first_sequence..).take(rows.len()).collect();
    for (sequences, rows) in sequences.chunks(ROWS_PER_STATEMENT).zip(rows.chunks(ROWS_PER_STATEMENT)) {
        insert_metrics_chunk(transaction, job, sequences, rows).await?;
    }
    transaction.record_change(Change::JobEvent(job));
    Ok(())
}

async fn insert_metrics_chunk<D: Dialect>(
    transaction: &mut Transaction<D>,
    job: Uuid,
    sequences: &[i64],
    rows: &[MetricsRow],
) -> Result<()> {
    let data: Vec<Value> = rows.iter().map(encode_metrics_event).collect::<Result<_>>()?;
    let mut params = vec![Param::from(job)];
    for ((sequence, row), data) in sequences.iter().zip(rows).zip(&data) {
        let step = to_sql_integer(row.step)?;
        params.extend([Param::from(*sequence), Param::from(step), Param::from(&row.split), Param::from(data)]);
    }
    let sql = insert_metrics_sql(rows.len());
    transaction.execute(AssertSqlSafe(sql), &params).await.context("adding metrics rows")?;
    Ok(())
}

fn insert_metrics_sql(rows: usize) -> String {
    let values = |row: usize| {
        let first = 2 + row * PARAMS_PER_ROW;
        let [sequence, step, split, data] = [first, first + 1, first + 2, first + 3];
        format!("($1, ${sequence}, 'metrics', ${step}, ${split}, ${data}, (select now from db_now))")
    };
    format!(
        "insert into events (job_id, sequence, kind, step, split, data, created_at)
         values {}
         on conflict (job_id, step, split) do nothing",
        (0..rows).map(values).collect::<Vec<_>>().join(", ")
    )
}

pub async fn list<D: Dialect>(store: &SqlStore<D>, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>> {
    let sql = "select sequence, kind, data, created_at from events
               where job_id = $1 and sequence > $2 order by sequence limit $3";
    let rows = store.fetch_all(sql, params![job, after, limit]).await.context("reading events")?;
    rows.iter().map(row_codec::decode_event).collect()
}
