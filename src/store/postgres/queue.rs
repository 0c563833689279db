//! Statements about the queue: who is next, and under whose lease a job runs.

use super::Postgres;
use super::connection::{Transaction, commit};
use super::{datasets, events, jobs};
use crate::store::columns::{self, Columns};
use crate::store::model::{Claim, Dataset, Lease, Worker};
use crate::store::moves::{self, Claiming, Held};
use crate::store::problems;
use espalier_core::error::{Context, Result};
use std::time::Duration;
use uuid::Uuid;

/// Settles what cannot be taken on the way to a job that can.
pub async fn claim(store: &Postgres, worker: &Worker, lease: Duration, max_attempts: u32) -> Result<Option<Claim>> {
    let mut transaction = store.begin().await?;
    let mut claimed = None;
    while claimed.is_none() {
        let Some(held) = next(&mut transaction).await? else { break };
        match moves::claiming(&held, max_attempts) {
            Claiming::Take => claimed = take(&mut transaction, &held, worker, lease).await?,
            Claiming::Settle(to) => jobs::move_to(&mut transaction, &held, &to).await?,
        }
    }
    commit(transaction).await?;
    Ok(claimed)
}

/// A job whose dataset is lost fails instead, so that it does not stand in the way of the others.
async fn take(transaction: &mut Transaction, held: &Held, worker: &Worker, lease: Duration) -> Result<Option<Claim>> {
    let job = jobs::by_id(transaction, held.id).await?;
    let dataset = datasets::by_id(transaction, job.dataset_id).await?;
    let validation: Option<Option<Dataset>> = match job.validation_dataset_id {
        Some(id) => datasets::by_id(transaction, id).await?.map(Some),
        None => Some(None),
    };
    let (Some(dataset), Some(validation_dataset)) = (dataset, validation) else {
        jobs::move_to(transaction, held, &held.fail(&problems::dataset_lost(job.dataset_id))).await?;
        return Ok(None);
    };
    let (epoch, sequence) = start(transaction, held, worker, lease).await?;
    events::add_status(transaction, held.id, sequence, &moves::running_event(held.attempt + 1)).await?;
    let job = jobs::by_id(transaction, held.id).await?;
    Ok(Some(Claim { lease: Lease { job: job.id, epoch }, job, dataset, validation_dataset }))
}

/// The oldest job that is queued, or whose lease has run out, and that no other transaction holds.
async fn next(transaction: &mut Transaction) -> Result<Option<Held>> {
    let row = sqlx::query(
        "select id, lease_epoch, status, wish, attempt, fruitless from jobs
         where status = 'queued' or (status = 'running' and lease_expires_at <= (select now from present))
         order by created_at, id limit 1
         for update skip locked",
    )
    .fetch_optional(&mut **transaction)
    .await
    .context("looking for the next job")?;
    row.as_ref().map(columns::held).transpose()
}

/// Answers the new lease epoch and the sequence of the event that tells of it.
async fn start(transaction: &mut Transaction, held: &Held, worker: &Worker, lease: Duration) -> Result<(i64, i64)> {
    let row = sqlx::query(
        "update jobs set status = 'running', lease_epoch = lease_epoch + 1,
             lease_expires_at = (select now from present) + make_interval(secs => $4), worker_instance = $5, worker_process = $6,
             attempt = attempt + 1, fruitless = fruitless + 1, error = null, started_at = coalesce(started_at, (select now from present)),
             last_sequence = last_sequence + 1
         where id = $1 and lease_epoch = $2 and status = $3
         returning lease_epoch, last_sequence",
    )
    .bind(held.id)
    .bind(held.epoch)
    .bind(held.status.name())
    .bind(lease.as_secs_f64())
    .bind(worker.instance)
    .bind(worker.process)
    .fetch_one(&mut **transaction)
    .await
    .context("claiming the next job")?;
    Ok((row.integer("lease_epoch")?, row.integer("last_sequence")?))
}

pub async fn place(store: &Postgres, id: Uuid) -> Result<u64> {
    let row = sqlx::query(
        "select count(*) as jobs from jobs as mine
         join jobs as other on (other.created_at, other.id) < (mine.created_at, mine.id)
         where mine.id = $1 and mine.status = 'queued' and other.status = 'queued'",
    )
    .bind(id)
    .fetch_one(&store.pool)
    .await
    .context("counting the jobs before this one")?;
    columns::count(&row, "jobs")
}

pub async fn take_back(store: &Postgres, instance: Uuid) -> Result<u64> {
    let mut transaction = store.begin().await?;
    let taken = expire(&mut transaction, instance).await?;
    commit(transaction).await?;
    Ok(taken)
}

async fn expire(transaction: &mut Transaction, instance: Uuid) -> Result<u64> {
    let outcome = sqlx::query(
        "update jobs set lease_expires_at = (select now from present)
         where status = 'running' and worker_instance = $1 and lease_expires_at > (select now from present)",
    )
    .bind(instance)
    .execute(&mut **transaction)
    .await
    .context("taking back the leases of an earlier run")?;
    Ok(outcome.rows_affected())
}
