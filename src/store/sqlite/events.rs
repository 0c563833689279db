//! Statements about a job's events. Their sequence is counted in the job's row, so whoever writes one holds that row,
//! and a reader never sees a later event before an earlier one.

use super::Sqlite;
use super::connection::Transaction;
use crate::store::columns;
use crate::store::model::Event;
use crate::store::values::{integer, metrics_event};
use espalier_core::error::{Context, Result};
use espalier_core::training::Row;
use serde_json::Value;
use uuid::Uuid;

pub async fn add_status(transaction: &mut Transaction, job: Uuid, sequence: i64, data: &Value) -> Result<()> {
    sqlx::query(
        "insert into events (job_id, sequence, kind, data, created_at)
         values ($1, $2, 'status', $3, (select now from present))",
    )
    .bind(job)
    .bind(sequence)
    .bind(data)
    .execute(&mut **transaction)
    .await
    .context("adding a status event")?;
    Ok(())
}

/// `first` is the sequence of the first row; those that are there already leave gaps.
pub async fn add_rows(transaction: &mut Transaction, job: Uuid, first: i64, rows: &[Row]) -> Result<()> {
    for (sequence, row) in (first..).zip(rows) {
        add_row(transaction, job, sequence, row).await?;
    }
    Ok(())
}

async fn add_row(transaction: &mut Transaction, job: Uuid, sequence: i64, row: &Row) -> Result<()> {
    sqlx::query(
        "insert into events (job_id, sequence, kind, step, split, data, created_at)
         values ($1, $2, 'metrics', $3, $4, $5, (select now from present))
         on conflict (job_id, step, split) do nothing",
    )
    .bind(job)
    .bind(sequence)
    .bind(integer(row.step)?)
    .bind(&row.split)
    .bind(metrics_event(row)?)
    .execute(&mut **transaction)
    .await
    .context("adding a metrics row")?;
    Ok(())
}

pub async fn list(store: &Sqlite, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>> {
    let rows = sqlx::query(
        "select sequence, kind, data, created_at from events
         where job_id = $1 and sequence > $2 order by sequence limit $3",
    )
    .bind(job)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(&store.readers)
    .await
    .context("reading events")?;
    rows.iter().map(columns::event).collect()
}
