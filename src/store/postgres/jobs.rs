//! Statements about jobs, and what their owners do with them.

use super::PostgresStore;
use super::connection::{Transaction, commit};
use super::{adapters, datasets, events, pagination};
use crate::store::errors;
use crate::store::job_state_machine::{self, Action, JobState, Transition};
use crate::store::model::{Job, NewJob, PageRequest, RequestedAction, Status};
use crate::store::row_decoding::{self, DecodeRow};
use crate::store::row_encoding::{self, JobJsonColumns};
use espalier_core::error::{Context, Result};
use uuid::Uuid;

/// The columns of a [`Job`], and where they come from.
macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "select id, owner, name, status, requested_action, dataset_id, validation_dataset_id, options, spec, progress, metrics,
             adapter_id, error, attempt, created_at, started_at, finished_at from jobs ",
            $rest
        )
    };
}

pub async fn add(store: &PostgresStore, job: &NewJob, max_queued: u64) -> Result<Job> {
    let json = JobJsonColumns::new(job)?;
    let mut transaction = store.begin().await?;
    for id in std::iter::once(job.dataset_id).chain(job.validation_dataset_id) {
        datasets::lock_for_share(&mut transaction, &job.owner, id).await?.ok_or_else(|| errors::dataset_gone(id))?;
    }
    if let Some(from) = job.spec.from_adapter() {
        let locked = adapters::lock_version_for_share(&mut transaction, &job.owner, &from.version).await?;
        locked.ok_or_else(|| errors::adapter_gone(&from.version))?;
    }
    lock_owner_queue(&mut transaction, &job.owner).await?;
    if count_queued(&mut transaction, &job.owner).await? >= max_queued {
        return Err(errors::queue_full(max_queued));
    }
    insert(&mut transaction, job, &json).await?;
    events::insert_status(&mut transaction, job.id, 1, &job_state_machine::queued_event()).await?;
    let added = find_by_id(&mut transaction, job.id).await?;
    commit(transaction).await?;
    Ok(added)
}

/// What its owner does with a job: `decide` says what becomes of it.
pub async fn apply_owner_action(
    store: &PostgresStore,
    owner: &str,
    id: Uuid,
    decide: fn(&JobState) -> Result<Action>,
) -> Result<Job> {
    let mut transaction = store.begin().await?;
    let state = lock_state(&mut transaction, owner, id).await?.ok_or_else(|| errors::job_not_found(id))?;
    match decide(&state)? {
        Action::Transition(transition) => apply_transition(&mut transaction, &state, &transition).await?,
        Action::Request(action) => set_requested_action(&mut transaction, &state, action).await?,
    }
    let job = find_by_id(&mut transaction, id).await?;
    commit(transaction).await?;
    Ok(job)
}

/// Changes the status of a job that this transaction holds, and writes the event.
pub async fn apply_transition(transaction: &mut Transaction, state: &JobState, transition: &Transition) -> Result<()> {
    let sequence = update_status(transaction, state, transition).await?.ok_or_else(|| errors::lease_lost(state.id))?;
    events::insert_status(transaction, state.id, sequence, &job_state_machine::status_event(state.attempt, transition))
        .await
}

async fn insert(transaction: &mut Transaction, job: &NewJob, json: &JobJsonColumns) -> Result<()> {
    let result = sqlx::query(
        "insert into jobs (id, owner, name, status, dataset_id, validation_dataset_id, options, spec, last_sequence, created_at)
         values ($1, $2, $3, 'queued', $4, $5, $6, $7, 1, (select now from db_now))",
    )
    .bind(job.id)
    .bind(&job.owner)
    .bind(&job.name)
    .bind(job.dataset_id)
    .bind(job.validation_dataset_id)
    .bind(&json.options)
    .bind(&json.spec)
    .execute(&mut **transaction)
    .await;
    match result {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(errors::job_exists(job.id)),
        other => other.map(|_| ()).context("adding a job"),
    }
}

/// Two of an owner's jobs must not take the last place in the queue at the same time.
async fn lock_owner_queue(transaction: &mut Transaction, owner: &str) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(owner)
        .execute(&mut **transaction)
        .await
        .context("waiting for another job of the same owner to be added")?;
    Ok(())
}

async fn count_queued(transaction: &mut Transaction, owner: &str) -> Result<u64> {
    let row = sqlx::query("select count(*) as jobs from jobs where status = 'queued' and owner = $1")
        .bind(owner)
        .fetch_one(&mut **transaction)
        .await
        .context("counting queued jobs")?;
    row_decoding::decode_u64(&row, "jobs")
}

pub async fn find_by_id(transaction: &mut Transaction, id: Uuid) -> Result<Job> {
    let row = sqlx::query(select_jobs!("where id = $1"))
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await
        .context("reading a job")?;
    row_decoding::decode_job(&row.ok_or_else(|| errors::job_not_found(id))?)
}

pub async fn read(store: &PostgresStore, owner: &str, id: Uuid) -> Result<Job> {
    let row = sqlx::query(select_jobs!("where id = $1 and owner = $2"))
        .bind(id)
        .bind(owner)
        .fetch_optional(&store.pool)
        .await
        .context("reading a job")?;
    row_decoding::decode_job(&row.ok_or_else(|| errors::job_not_found(id))?)
}

pub async fn list(store: &PostgresStore, owner: &str, status: Option<Status>, page: PageRequest) -> Result<Vec<Job>> {
    let cursor = pagination::resolve_cursor(store, owner, page).await?;
    let rows = sqlx::query(select_jobs!(
        "where owner = $1 and ($2::text is null or status = $2) and (created_at, id) < ($3, $4)
         order by created_at desc, id desc limit $5"
    ))
    .bind(owner)
    .bind(status.map(Status::as_str))
    .bind(cursor.created_at)
    .bind(cursor.id)
    .bind(i64::from(page.limit))
    .fetch_all(&store.pool)
    .await
    .context("listing jobs")?;
    rows.iter().map(row_decoding::decode_job).collect()
}

pub async fn count_by_status(store: &PostgresStore) -> Result<Vec<(Status, u64)>> {
    let rows = sqlx::query("select status, count(*) as jobs from jobs group by status")
        .fetch_all(&store.pool)
        .await
        .context("counting jobs")?;
    row_decoding::decode_job_counts(&rows)
}

pub async fn unfinished_ids(store: &PostgresStore) -> Result<Vec<Uuid>> {
    let rows = sqlx::query("select id from jobs where status in ('queued', 'paused', 'running')")
        .fetch_all(&store.pool)
        .await
        .context("listing the jobs that are not over")?;
    rows.iter().map(|row| row.uuid("id")).collect()
}

async fn lock_state(transaction: &mut Transaction, owner: &str, id: Uuid) -> Result<Option<JobState>> {
    let row = sqlx::query(
        "select id, lease_epoch, status, requested_action, attempt, attempts_without_progress from jobs where id = $1 and owner = $2 for update",
    )
    .bind(id)
    .bind(owner)
    .fetch_optional(&mut **transaction)
    .await
    .context("reading the state of a job")?;
    row.as_ref().map(row_decoding::decode_job_state).transpose()
}

async fn set_requested_action(
    transaction: &mut Transaction,
    state: &JobState,
    action: Option<RequestedAction>,
) -> Result<()> {
    sqlx::query("update jobs set requested_action = $3 where id = $1 and lease_epoch = $2 and status = 'running'")
        .bind(state.id)
        .bind(state.lease_epoch)
        .bind(action.map(RequestedAction::as_str))
        .execute(&mut **transaction)
        .await
        .context("writing what is wished of a job")?;
    Ok(())
}

/// Answers the sequence of the event that tells of it; `None` where the row is not as it was held.
async fn update_status(
    transaction: &mut Transaction,
    state: &JobState,
    transition: &Transition,
) -> Result<Option<i64>> {
    let row = sqlx::query(
        "update jobs set status = $4, requested_action = null, error = $5, metrics = $6, adapter_id = $7, attempts_without_progress = $8,
             finished_at = case when $9 then (select now from db_now) end,
             lease_expires_at = null, worker_instance = null, worker_process = null, last_sequence = last_sequence + 1
         where id = $1 and lease_epoch = $2 and status = $3
         returning last_sequence",
    )
    .bind(state.id)
    .bind(state.lease_epoch)
    .bind(state.status.as_str())
    .bind(transition.status.as_str())
    .bind(row_encoding::encode_error(transition.error.as_ref())?)
    .bind(&transition.metrics)
    .bind(transition.adapter_id)
    .bind(i64::from(transition.attempts_without_progress))
    .bind(transition.status.is_terminal())
    .fetch_optional(&mut **transaction)
    .await
    .context("changing the status of a job")?;
    row.map(|row| row.integer("last_sequence")).transpose()
}
