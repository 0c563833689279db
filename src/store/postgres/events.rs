//! Statements about a job's events. Their sequence is counted in the job's row, so whoever writes one holds that row,
//! and a reader never sees a later event before an earlier one.

use super::PostgresStore;
use super::connection::Transaction;
use crate::store::model::Event;
use crate::store::row_decoding;
use crate::store::row_encoding::{encode_metrics_event, to_sql_integer};
use espalier_core::error::{Context, Result};
use espalier_core::training::MetricsRow;
use serde_json::Value;
use uuid::Uuid;

pub async fn insert_status(transaction: &mut Transaction, job: Uuid, sequence: i64, data: &Value) -> Result<()> {
    sqlx::query(
        "insert into events (job_id, sequence, kind, data, created_at)
         values ($1, $2, 'status', $3, (select now from db_now))",
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
pub async fn insert_metrics(
    transaction: &mut Transaction,
    job: Uuid,
    first_sequence: i64,
    rows: &[MetricsRow],
) -> Result<()> {
    let sequences: Vec<i64> = (first_sequence..).take(rows.len()).collect();
    let steps: Vec<i64> = rows.iter().map(|row| to_sql_integer(row.step)).collect::<Result<_>>()?;
    let splits: Vec<&str> = rows.iter().map(|row| row.split.as_str()).collect();
    let data: Vec<Value> = rows.iter().map(encode_metrics_event).collect::<Result<_>>()?;
    sqlx::query(
        "insert into events (job_id, sequence, kind, step, split, data, created_at)
         select $1, sequence, 'metrics', step, split, data, (select now from db_now)
         from unnest($2::bigint[], $3::bigint[], $4::text[], $5::jsonb[]) as row (sequence, step, split, data)
         on conflict (job_id, step, split) do nothing",
    )
    .bind(job)
    .bind(sequences)
    .bind(steps)
    .bind(splits)
    .bind(data)
    .execute(&mut **transaction)
    .await
    .context("adding metrics rows")?;
    Ok(())
}

pub async fn list(store: &PostgresStore, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>> {
    let rows = sqlx::query(
        "select sequence, kind, data, created_at from events
         where job_id = $1 and sequence > $2 order by sequence limit $3",
    )
    .bind(job)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(&store.pool)
    .await
    .context("reading events")?;
    rows.iter().map(row_decoding::decode_event).collect()
}
