//! Writes of a worker under its lease. Each one names the lease epoch; with an old epoch it writes nothing.

use super::connection::{SqlStore, Transaction};
use super::dialect::{Dialect, RowLock, params};
use super::jobs::{self, select_job_states};
use super::row_decoding::{self, DecodeRow};
use super::{adapters, events, row_encoding};
use crate::store::errors;
use crate::store::job_state_machine::{JobState, Transition};
use crate::store::model::{Adapter, Lease, NewAdapter, RequestedAction};
use espalier_core::error::{Context, Result};
use espalier_core::training::{MetricsRow, Progress};
use serde_json::Value;
use std::time::Duration;

pub async fn heartbeat<D: Dialect>(
    store: &SqlStore<D>,
    lease: &Lease,
    lease_duration: Duration,
    progress: Option<&Progress>,
) -> Result<Option<RequestedAction>> {
    let mut transaction = store.begin().await?;
    let progress = row_encoding::encode_progress(progress)?;
    let action = extend_lease(&mut transaction, lease, lease_duration, progress).await?;
    transaction.commit().await?;
    Ok(action)
}

pub async fn record_metrics<D: Dialect>(store: &SqlStore<D>, lease: &Lease, rows: &[MetricsRow]) -> Result<()> {
    let mut transaction = store.begin().await?;
    let first_sequence = reserve_sequence_numbers(&mut transaction, lease, rows.len()).await?;
    events::insert_metrics(&mut transaction, lease.job_id, first_sequence, rows).await?;
    transaction.commit().await
}

pub async fn record_checkpoint<D: Dialect>(store: &SqlStore<D>, lease: &Lease, step: u64) -> Result<()> {
    let mut transaction = store.begin().await?;
    update_checkpoint_step(&mut transaction, lease, step).await?;
    transaction.commit().await
}

/// Ends the lease and changes the status of the job as `decide` says.
pub async fn end_lease<D: Dialect>(
    store: &SqlStore<D>,
    lease: &Lease,
    decide: impl FnOnce(&JobState) -> Transition + Send,
) -> Result<()> {
    let mut transaction = store.begin().await?;
    let state = lock_leased_job(&mut transaction, lease).await?;
    jobs::apply_transition(&mut transaction, &state, &decide(&state)).await?;
    transaction.commit().await
}

pub async fn publish<D: Dialect>(
    store: &SqlStore<D>,
    lease: &Lease,
    adapter: &NewAdapter,
    metrics: &Value,
) -> Result<Adapter> {
    let metrics = row_encoding::to_storable_json("the job's metrics", metrics)?;
    let mut transaction = store.begin().await?;
    let state = lock_leased_job(&mut transaction, lease).await?;
    let published = adapters::insert_with_name(&mut transaction, adapter).await?;
    jobs::apply_transition(&mut transaction, &state, &state.succeed(adapter.id, metrics)).await?;
    transaction.commit().await?;
    Ok(published)
}

async fn lock_leased_job<D: Dialect>(transaction: &mut Transaction<D>, lease: &Lease) -> Result<JobState> {
    let sql = select_job_states!("where id = $1 and lease_epoch = $2 and status = 'running'");
    let params = params![lease.job_id, lease.epoch];
    let row = transaction.fetch_locked(sql, RowLock::Update, params).await.context("checking a lease")?;
    row_decoding::decode_job_state(&row.ok_or_else(|| errors::lease_lost(lease.job_id))?)
}

async fn extend_lease<D: Dialect>(
    transaction: &mut Transaction<D>,
    lease: &Lease,
    lease_duration: Duration,
    progress: Option<Value>,
) -> Result<Option<RequestedAction>> {
    let sql = "update jobs set lease_expires_at = (select now from db_now) + $3, progress = coalesce($4, progress)
               where id = $1 and lease_epoch = $2 and status = 'running'
               returning requested_action";
    let params = params![lease.job_id, lease.epoch, lease_duration, &progress];
    let row = transaction.fetch_optional(sql, params).await.context("extending a lease")?;
    row_decoding::decode_requested_action(&row.ok_or_else(|| errors::lease_lost(lease.job_id))?)
}

/// Reserves `count` consecutive sequence numbers for events and returns the first.
async fn reserve_sequence_numbers<D: Dialect>(
    transaction: &mut Transaction<D>,
    lease: &Lease,
    count: usize,
) -> Result<i64> {
    let count = i64::try_from(count).context("counting metrics rows")?;
    let sql = "update jobs set last_sequence = last_sequence + $3
               where id = $1 and lease_epoch = $2 and status = 'running'
               returning last_sequence";
    let params = params![lease.job_id, lease.epoch, count];
    let row = transaction.fetch_optional(sql, params).await.context("numbering metrics rows")?;
    let last = row.ok_or_else(|| errors::lease_lost(lease.job_id))?.integer("last_sequence")?;
    Ok(last - count + 1)
}

/// A checkpoint counts as progress only if no earlier attempt has reached its step.
async fn update_checkpoint_step<D: Dialect>(transaction: &mut Transaction<D>, lease: &Lease, step: u64) -> Result<()> {
    let sql = "update jobs set
                   attempts_without_progress =
                       case when $3 > checkpoint_step then 0 else attempts_without_progress end,
                   checkpoint_step = case when $3 > checkpoint_step then $3 else checkpoint_step end
               where id = $1 and lease_epoch = $2 and status = 'running'";
    let params = params![lease.job_id, lease.epoch, row_encoding::to_sql_integer(step)?];
    match transaction.execute(sql, params).await.context("recording a checkpoint")? {
        0 => Err(errors::lease_lost(lease.job_id)),
        _ => Ok(()),
    }
}
