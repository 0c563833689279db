//! Leases of running jobs: the writes of a worker under its lease. Each write names the lease epoch; with an old epoch it writes nothing.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, RowLock, params};
use super::jobs::{self, select_job_states};
use super::row_codec::{self, DecodeRow};
use super::{adapters, events, idempotency};
use crate::store::changes::Change;
use crate::store::errors;
use crate::store::job_state_machine::{JobState, Transition};
use crate::store::model::{Adapter, Lease, NewAdapter, RequestedAction};
use espalier_core::error::Result;
use espalier_core::training::{MetricsRow, Progress};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

pub async fn expire_leases_of_instance<D: Dialect>(store: &SqlStore<D>, instance: Uuid) -> Result<u64> {
    let mut transaction = store.begin().await?;
    let expired = expire_leases(&mut transaction, instance).await?;
    idempotency::release_instance(&mut transaction, instance).await?;
    transaction.commit().await?;
    Ok(expired)
}

async fn expire_leases<D: Dialect>(transaction: &mut Transaction<D>, instance: Uuid) -> Result<u64> {
    let sql = "update jobs set lease_expires_at = (select now from db_now)
               where status = 'running' and worker_instance = $1 and lease_expires_at > (select now from db_now)";
    transaction.execute(sql, params![instance]).await.context("expiring the leases of an instance")
}

pub async fn heartbeat<D: Dialect>(
    store: &SqlStore<D>,
    lease: &Lease,
    lease_duration: Duration,
    progress: Option<&Progress>,
) -> Result<Option<RequestedAction>> {
    let mut transaction = store.begin().await?;
    let progress = row_codec::encode_progress(progress)?;
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
    let metrics = row_codec::to_storable_json("the job's metrics", metrics)?;
    let mut transaction = store.begin().await?;
    // The answer to an earlier call may have been lost after its commit.
    if let Some(published) = adapters::find_published(&mut transaction, lease.job_id, adapter).await? {
        return Ok(published);
    }
    let state = lock_leased_job(&mut transaction, lease).await?;
    let published = adapters::insert_with_name(&mut transaction, adapter).await?;
    jobs::apply_transition(&mut transaction, &state, &state.succeed(adapter.id, metrics)).await?;
    transaction.record_change(Change::Adapters);
    transaction.commit().await?;
    Ok(published)
}

async fn lock_leased_job<D: Dialect>(transaction: &mut Transaction<D>, lease: &Lease) -> Result<JobState> {
    let sql = select_job_states!("where id = $1 and lease_epoch = $2 and status = 'running'");
    let params = params![lease.job_id, lease.epoch];
    let row = transaction.fetch_locked(sql, RowLock::Update, params).await.context("checking a lease")?;
    row_codec::decode_job_state(&row.ok_or_else(|| errors::lease_lost(lease.job_id))?)
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
    row_codec::decode_requested_action(&row.ok_or_else(|| errors::lease_lost(lease.job_id))?)
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

/// The process of a lost lease lives: its job does not count a death, whether another worker has claimed it since or not.
pub async fn report_lost_lease<D: Dialect>(store: &SqlStore<D>, lease: &Lease) -> Result<()> {
    let mut transaction = store.begin().await?;
    let sql = "update jobs set worker_process = null where id = $1 and lease_epoch = $2 and status = 'running'";
    let params = params![lease.job_id, lease.epoch];
    if transaction.execute(sql, params).await.context("reporting a lost lease")? == 0 {
        let sql = "update jobs set process_deaths = process_deaths - 1, next_attempt_at = null
                   where id = $1 and lease_epoch in ($2, $2 + 1) and process_deaths > 0
                       and status in ('queued', 'running')";
        transaction.execute(sql, params).await.context("reporting a lost lease")?;
    }
    transaction.commit().await
}

/// A checkpoint counts as progress only if no earlier attempt has reached its step.
async fn update_checkpoint_step<D: Dialect>(transaction: &mut Transaction<D>, lease: &Lease, step: u64) -> Result<()> {
    let sql = "update jobs set
                   process_deaths = case when $3 > checkpoint_step then 0 else process_deaths end,
                   internal_errors = case when $3 > checkpoint_step then 0 else internal_errors end,
                   checkpoint_step = case when $3 > checkpoint_step then $3 else checkpoint_step end
               where id = $1 and lease_epoch = $2 and status = 'running'";
    let params = params![lease.job_id, lease.epoch, row_codec::to_sql_integer(step)?];
    match transaction.execute(sql, params).await.context("recording a checkpoint")? {
        0 => Err(errors::lease_lost(lease.job_id)),
        _ => Ok(()),
    }
}
