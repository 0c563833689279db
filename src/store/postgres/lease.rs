//! What a worker writes under its lease: every one of these names the lease's epoch and writes nothing without it.

use super::Postgres;
use super::connection::{Transaction, commit};
use super::{adapters, events, jobs};
use crate::store::columns::{self, Columns};
use crate::store::model::{Adapter, Lease, NewAdapter, Wish};
use crate::store::moves::{Held, Move};
use crate::store::problems;
use crate::store::values;
use espalier_core::error::{Context, Result};
use espalier_core::training::{Progress, Row};
use serde_json::Value;
use std::time::Duration;

pub async fn heartbeat(
    store: &Postgres,
    lease: &Lease,
    extend: Duration,
    progress: Option<&Progress>,
) -> Result<Option<Wish>> {
    let mut transaction = store.begin().await?;
    let wish = extend_lease(&mut transaction, lease, extend, values::progress(progress)?).await?;
    commit(transaction).await?;
    Ok(wish)
}

pub async fn record_rows(store: &Postgres, lease: &Lease, rows: &[Row]) -> Result<()> {
    let mut transaction = store.begin().await?;
    let first = reserve_events(&mut transaction, lease, rows.len()).await?;
    events::add_rows(&mut transaction, lease.job, first, rows).await?;
    commit(transaction).await
}

pub async fn checkpointed(store: &Postgres, lease: &Lease, step: u64) -> Result<()> {
    let mut transaction = store.begin().await?;
    note_checkpoint(&mut transaction, lease, step).await?;
    commit(transaction).await
}

/// Ends the lease; `decide` says where the job goes.
pub async fn let_go(store: &Postgres, lease: &Lease, decide: impl FnOnce(&Held) -> Move + Send) -> Result<()> {
    let mut transaction = store.begin().await?;
    let held = hold(&mut transaction, lease).await?;
    jobs::move_to(&mut transaction, &held, &decide(&held)).await?;
    commit(transaction).await
}

pub async fn publish(store: &Postgres, lease: &Lease, adapter: &NewAdapter, metrics: &Value) -> Result<Adapter> {
    let metrics = values::stored("the job's metrics", metrics)?;
    let mut transaction = store.begin().await?;
    let held = hold(&mut transaction, lease).await?;
    let published = adapters::insert_and_name(&mut transaction, adapter).await?;
    jobs::move_to(&mut transaction, &held, &held.succeed(adapter.id, metrics)).await?;
    commit(transaction).await?;
    Ok(published)
}

async fn hold(transaction: &mut Transaction, lease: &Lease) -> Result<Held> {
    let row = sqlx::query(
        "select id, lease_epoch, status, wish, attempt, fruitless from jobs
         where id = $1 and lease_epoch = $2 and status = 'running'
         for update",
    )
    .bind(lease.job)
    .bind(lease.epoch)
    .fetch_optional(&mut **transaction)
    .await
    .context("checking a lease")?;
    columns::held(&row.ok_or_else(|| problems::lease_lost(lease.job))?)
}

async fn extend_lease(
    transaction: &mut Transaction,
    lease: &Lease,
    extend: Duration,
    progress: Option<Value>,
) -> Result<Option<Wish>> {
    let row = sqlx::query(
        "update jobs set lease_expires_at = (select now from present) + make_interval(secs => $3), progress = coalesce($4, progress)
         where id = $1 and lease_epoch = $2 and status = 'running'
         returning wish",
    )
    .bind(lease.job)
    .bind(lease.epoch)
    .bind(extend.as_secs_f64())
    .bind(progress)
    .fetch_optional(&mut **transaction)
    .await
    .context("extending a lease")?;
    columns::wish(&row.ok_or_else(|| problems::lease_lost(lease.job))?)
}

/// Answers the first of `count` sequence numbers that nobody else will use.
async fn reserve_events(transaction: &mut Transaction, lease: &Lease, count: usize) -> Result<i64> {
    let count = i64::try_from(count).context("counting metrics rows")?;
    let row = sqlx::query(
        "update jobs set last_sequence = last_sequence + $3
         where id = $1 and lease_epoch = $2 and status = 'running'
         returning last_sequence",
    )
    .bind(lease.job)
    .bind(lease.epoch)
    .bind(count)
    .fetch_optional(&mut **transaction)
    .await
    .context("numbering metrics rows")?;
    let last = row.ok_or_else(|| problems::lease_lost(lease.job))?.integer("last_sequence")?;
    Ok(last - count + 1)
}

/// A checkpoint of a step that an earlier attempt had reached already is nothing new.
async fn note_checkpoint(transaction: &mut Transaction, lease: &Lease, step: u64) -> Result<()> {
    let outcome = sqlx::query(
        "update jobs set fruitless = case when $3 > checkpoint_step then 0 else fruitless end,
             checkpoint_step = case when $3 > checkpoint_step then $3 else checkpoint_step end
         where id = $1 and lease_epoch = $2 and status = 'running'",
    )
    .bind(lease.job)
    .bind(lease.epoch)
    .bind(values::integer(step)?)
    .execute(&mut **transaction)
    .await
    .context("noting a checkpoint")?;
    match outcome.rows_affected() {
        0 => Err(problems::lease_lost(lease.job)),
        _ => Ok(()),
    }
}
