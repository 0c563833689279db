//! What a worker writes under its lease: every one of these names the lease's epoch and writes nothing without it.

use super::PostgresStore;
use super::connection::{Transaction, commit};
use super::{adapters, events, jobs};
use crate::store::errors;
use crate::store::job_state_machine::{JobState, Transition};
use crate::store::model::{Adapter, Lease, NewAdapter, RequestedAction};
use crate::store::row_decoding::{self, DecodeRow};
use crate::store::row_encoding;
use espalier_core::error::{Context, Result};
use espalier_core::training::{MetricsRow, Progress};
use serde_json::Value;
use std::time::Duration;

pub async fn heartbeat(
    store: &PostgresStore,
    lease: &Lease,
    lease_duration: Duration,
    progress: Option<&Progress>,
) -> Result<Option<RequestedAction>> {
    let mut transaction = store.begin().await?;
    let action =
        extend_lease(&mut transaction, lease, lease_duration, row_encoding::encode_progress(progress)?).await?;
    commit(transaction).await?;
    Ok(action)
}

pub async fn record_metrics(store: &PostgresStore, lease: &Lease, rows: &[MetricsRow]) -> Result<()> {
    let mut transaction = store.begin().await?;
    let first_sequence = reserve_sequence_numbers(&mut transaction, lease, rows.len()).await?;
    events::insert_metrics(&mut transaction, lease.job_id, first_sequence, rows).await?;
    commit(transaction).await
}

pub async fn record_checkpoint(store: &PostgresStore, lease: &Lease, step: u64) -> Result<()> {
    let mut transaction = store.begin().await?;
    update_checkpoint_step(&mut transaction, lease, step).await?;
    commit(transaction).await
}

/// Ends the lease; `decide` says where the job goes.
pub async fn end_lease(
    store: &PostgresStore,
    lease: &Lease,
    decide: impl FnOnce(&JobState) -> Transition + Send,
) -> Result<()> {
    let mut transaction = store.begin().await?;
    let state = lock_leased_job(&mut transaction, lease).await?;
    jobs::apply_transition(&mut transaction, &state, &decide(&state)).await?;
    commit(transaction).await
}

pub async fn publish(store: &PostgresStore, lease: &Lease, adapter: &NewAdapter, metrics: &Value) -> Result<Adapter> {
    let metrics = row_encoding::to_storable_json("the job's metrics", metrics)?;
    let mut transaction = store.begin().await?;
    let state = lock_leased_job(&mut transaction, lease).await?;
    let published = adapters::insert_with_name(&mut transaction, adapter).await?;
    jobs::apply_transition(&mut transaction, &state, &state.succeed(adapter.id, metrics)).await?;
    commit(transaction).await?;
    Ok(published)
}

async fn lock_leased_job(transaction: &mut Transaction, lease: &Lease) -> Result<JobState> {
    let row = sqlx::query(
        "select id, lease_epoch, status, requested_action, attempt, attempts_without_progress from jobs
         where id = $1 and lease_epoch = $2 and status = 'running'
         for update",
    )
    .bind(lease.job_id)
    .bind(lease.epoch)
    .fetch_optional(&mut **transaction)
    .await
    .context("checking a lease")?;
    row_decoding::decode_job_state(&row.ok_or_else(|| errors::lease_lost(lease.job_id))?)
}

async fn extend_lease(
    transaction: &mut Transaction,
    lease: &Lease,
    lease_duration: Duration,
    progress: Option<Value>,
) -> Result<Option<RequestedAction>> {
    let row = sqlx::query(
        "update jobs set lease_expires_at = (select now from db_now) + make_interval(secs => $3), progress = coalesce($4, progress)
         where id = $1 and lease_epoch = $2 and status = 'running'
         returning requested_action",
    )
    .bind(lease.job_id)
    .bind(lease.epoch)
    .bind(lease_duration.as_secs_f64())
    .bind(progress)
    .fetch_optional(&mut **transaction)
    .await
    .context("extending a lease")?;
    row_decoding::decode_requested_action(&row.ok_or_else(|| errors::lease_lost(lease.job_id))?)
}

/// Answers the first of `count` sequence numbers that nobody else will use.
async fn reserve_sequence_numbers(transaction: &mut Transaction, lease: &Lease, count: usize) -> Result<i64> {
    let count = i64::try_from(count).context("counting metrics rows")?;
    let row = sqlx::query(
        "update jobs set last_sequence = last_sequence + $3
         where id = $1 and lease_epoch = $2 and status = 'running'
         returning last_sequence",
    )
    .bind(lease.job_id)
    .bind(lease.epoch)
    .bind(count)
    .fetch_optional(&mut **transaction)
    .await
    .context("numbering metrics rows")?;
    let last = row.ok_or_else(|| errors::lease_lost(lease.job_id))?.integer("last_sequence")?;
    Ok(last - count + 1)
}

/// A checkpoint of a step that an earlier attempt had reached already is nothing new.
async fn update_checkpoint_step(transaction: &mut Transaction, lease: &Lease, step: u64) -> Result<()> {
    let result = sqlx::query(
        "update jobs set attempts_without_progress = case when $3 > checkpoint_step then 0 else attempts_without_progress end,
             checkpoint_step = case when $3 > checkpoint_step then $3 else checkpoint_step end
         where id = $1 and lease_epoch = $2 and status = 'running'",
    )
    .bind(lease.job_id)
    .bind(lease.epoch)
    .bind(row_encoding::to_sql_integer(step)?)
    .execute(&mut **transaction)
    .await
    .context("noting a checkpoint")?;
    match result.rows_affected() {
        0 => Err(errors::lease_lost(lease.job_id)),
        _ => Ok(()),
    }
}
