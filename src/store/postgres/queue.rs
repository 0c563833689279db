//! Statements about the queue: who is next, and under whose lease a job runs.

use super::PostgresStore;
use super::connection::{Transaction, commit};
use super::{datasets, events, jobs};
use crate::store::errors;
use crate::store::job_state_machine::{self, ClaimDecision, JobState};
use crate::store::model::{Claim, Dataset, Lease, WorkerId};
use crate::store::row_decoding::{self, DecodeRow};
use espalier_core::error::{Context, Result};
use std::time::Duration;
use uuid::Uuid;

/// Settles what cannot be taken on the way to a job that can.
pub async fn claim(
    store: &PostgresStore,
    worker: &WorkerId,
    lease_duration: Duration,
    max_attempts: u32,
) -> Result<Option<Claim>> {
    let mut transaction = store.begin().await?;
    let mut claimed = None;
    while claimed.is_none() {
        let Some(state) = next_claimable(&mut transaction).await? else { break };
        match job_state_machine::decide_claim(&state, max_attempts) {
            ClaimDecision::Claim => claimed = try_claim(&mut transaction, &state, worker, lease_duration).await?,
            ClaimDecision::Transition(transition) => {
                jobs::apply_transition(&mut transaction, &state, &transition).await?;
            }
        }
    }
    commit(transaction).await?;
    Ok(claimed)
}

/// A job whose dataset is lost fails instead, so that it does not stand in the way of the others.
async fn try_claim(
    transaction: &mut Transaction,
    state: &JobState,
    worker: &WorkerId,
    lease_duration: Duration,
) -> Result<Option<Claim>> {
    let job = jobs::find_by_id(transaction, state.id).await?;
    let dataset = datasets::find_by_id(transaction, job.dataset_id).await?;
    let validation: Option<Option<Dataset>> = match job.validation_dataset_id {
        Some(id) => datasets::find_by_id(transaction, id).await?.map(Some),
        None => Some(None),
    };
    let (Some(dataset), Some(validation_dataset)) = (dataset, validation) else {
        jobs::apply_transition(transaction, state, &state.fail(&errors::dataset_gone_for_job(job.dataset_id))).await?;
        return Ok(None);
    };
    let (epoch, sequence) = start_attempt(transaction, state, worker, lease_duration).await?;
    events::insert_status(transaction, state.id, sequence, &job_state_machine::running_event(state.attempt + 1))
        .await?;
    let job = jobs::find_by_id(transaction, state.id).await?;
    Ok(Some(Claim { lease: Lease { job_id: job.id, epoch }, job, dataset, validation_dataset }))
}

/// The oldest job that is queued, or whose lease has run out, and that no other transaction holds.
async fn next_claimable(transaction: &mut Transaction) -> Result<Option<JobState>> {
    let row = sqlx::query(
        "select id, lease_epoch, status, requested_action, attempt, attempts_without_progress from jobs
         where status = 'queued' or (status = 'running' and lease_expires_at <= (select now from db_now))
         order by created_at, id limit 1
         for update skip locked",
    )
    .fetch_optional(&mut **transaction)
    .await
    .context("looking for the next job")?;
    row.as_ref().map(row_decoding::decode_job_state).transpose()
}

/// Answers the new lease epoch and the sequence of the event that tells of it.
async fn start_attempt(
    transaction: &mut Transaction,
    state: &JobState,
    worker: &WorkerId,
    lease_duration: Duration,
) -> Result<(i64, i64)> {
    let row = sqlx::query(
        "update jobs set status = 'running', lease_epoch = lease_epoch + 1,
             lease_expires_at = (select now from db_now) + make_interval(secs => $4), worker_instance = $5, worker_process = $6,
             attempt = attempt + 1, attempts_without_progress = attempts_without_progress + 1, error = null, started_at = coalesce(started_at, (select now from db_now)),
             last_sequence = last_sequence + 1
         where id = $1 and lease_epoch = $2 and status = $3
         returning lease_epoch, last_sequence",
    )
    .bind(state.id)
    .bind(state.lease_epoch)
    .bind(state.status.as_str())
    .bind(lease_duration.as_secs_f64())
    .bind(worker.instance_id)
    .bind(worker.process_id)
    .fetch_one(&mut **transaction)
    .await
    .context("claiming the next job")?;
    Ok((row.integer("lease_epoch")?, row.integer("last_sequence")?))
}

pub async fn position(store: &PostgresStore, id: Uuid) -> Result<u64> {
    let row = sqlx::query(
        "select count(*) as jobs from jobs as mine
         join jobs as other on (other.created_at, other.id) < (mine.created_at, mine.id)
         where mine.id = $1 and mine.status = 'queued' and other.status = 'queued'",
    )
    .bind(id)
    .fetch_one(&store.pool)
    .await
    .context("counting the jobs before this one")?;
    row_decoding::decode_u64(&row, "jobs")
}

pub async fn expire_leases_of_instance(store: &PostgresStore, instance: Uuid) -> Result<u64> {
    let mut transaction = store.begin().await?;
    let expired = expire_leases(&mut transaction, instance).await?;
    commit(transaction).await?;
    Ok(expired)
}

async fn expire_leases(transaction: &mut Transaction, instance: Uuid) -> Result<u64> {
    let result = sqlx::query(
        "update jobs set lease_expires_at = (select now from db_now)
         where status = 'running' and worker_instance = $1 and lease_expires_at > (select now from db_now)",
    )
    .bind(instance)
    .execute(&mut **transaction)
    .await
    .context("taking back the leases of an earlier run")?;
    Ok(result.rows_affected())
}
