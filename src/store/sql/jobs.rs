//! Statements on jobs, and the transactions of their owners.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, RowLock, params};
use super::row_codec::{self, DecodeRow, JobJsonColumns};
use super::{adapters, datasets, deleted_owners, events, pagination, turns, webhook_deliveries};
use crate::store::changes::Change;
use crate::store::errors;
use crate::store::job_state_machine::{self, Action, JobState, Transition};
use crate::store::model::{Job, NewJob, PageRequest, RequestedAction, Status, WebhookEvent};
use espalier_core::error::Result;
use espalier_core::training::Plan;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// Selects the columns of a [`Job`].
macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "select id, owner, name, status, requested_action, dataset_id, validation_dataset_id, options, spec, metadata,
                 created_by, priority, progress, metrics, adapter_id, error, attempt, next_attempt_at, worker_instance, worker_process,
                 lease_expires_at, created_at, started_at, finished_at, trace_context
             from jobs ",
            $rest
        )
    };
}

/// Selects the columns of a [`JobState`].
macro_rules! select_job_states {
    ($rest:literal) => {
        concat!(
            "select id, lease_epoch, status, requested_action, attempt, process_deaths, internal_errors, worker_process
             from jobs ",
            $rest
        )
    };
}

pub(super) use select_job_states;

pub async fn add<D: Dialect>(store: &SqlStore<D>, job: &NewJob, max_queued: u64) -> Result<Job> {
    let json = JobJsonColumns::new(job)?;
    let mut transaction = store.begin().await?;
    let dataset_ids = [Some(job.dataset_id), job.validation_dataset_id];
    lock_inputs(&mut transaction, &job.owner, dataset_ids, &job.spec).await?;
    check_queue_capacity(&mut transaction, &job.owner, max_queued).await?;
    turns::add_owner(&mut transaction, &job.owner).await?;
    insert(&mut transaction, job, &json).await?;
    events::insert_status(&mut transaction, job.id, 1, &job_state_machine::queued_event()).await?;
    transaction.record_change(Change::JobQueued(job.id));
    deleted_owners::check_owner(&mut transaction, &job.owner).await?;
    let added = find_by_id(&mut transaction, job.id).await?;
    transaction.commit().await?;
    Ok(added)
}

/// Queues a failed job of the owner again.
pub async fn retry<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid, max_queued: u64) -> Result<Job> {
    let mut transaction = store.begin().await?;
    let state = lock_state(&mut transaction, owner, id).await?.ok_or_else(|| errors::job_not_found(id))?;
    let transition = job_state_machine::retry(&state)?;
    let job = find_by_id(&mut transaction, id).await?;
    let dataset_ids = [Some(job.dataset_id), job.validation_dataset_id];
    lock_inputs(&mut transaction, owner, dataset_ids, &job.spec).await?;
    check_queue_capacity(&mut transaction, owner, max_queued).await?;
    apply_transition(&mut transaction, &state, &transition).await?;
    deleted_owners::check_owner(&mut transaction, owner).await?;
    let job = find_by_id(&mut transaction, id).await?;
    transaction.commit().await?;
    Ok(job)
}

/// Prevents the deletion of a job's datasets and of the adapter that it starts from until the transaction ends, and records the
/// use of the datasets.
async fn lock_inputs<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    dataset_ids: [Option<Uuid>; 2],
    plan: &Plan,
) -> Result<()> {
    // In one order, so that two jobs on the same datasets do not wait for each other.
    for id in dataset_ids.into_iter().flatten().collect::<BTreeSet<_>>() {
        datasets::mark_used(transaction, owner, id).await?.ok_or_else(|| errors::dataset_gone(id))?;
    }
    if let Some(from) = plan.from_adapter() {
        let locked = adapters::lock_version_for_share(transaction, owner, &from.version).await?;
        locked.ok_or_else(|| errors::adapter_gone(&from.version))?;
    }
    Ok(())
}

async fn check_queue_capacity<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    max_queued: u64,
) -> Result<()> {
    lock_owner_queue(transaction, owner).await?;
    match count_queued(transaction, owner).await? >= max_queued {
        true => Err(errors::queue_full(max_queued)),
        false => Ok(()),
    }
}

/// Cancels, pauses or resumes a job for its owner, as `decide` says.
pub async fn apply_owner_action<D: Dialect>(
    store: &SqlStore<D>,
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
    transaction.commit().await?;
    Ok(job)
}

/// Cancels an unfinished job at once if no worker has a lease on it; requests its cancellation otherwise. Returns false for a job that
/// is finished or gone.
pub async fn cancel_without_worker<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<bool> {
    let mut transaction = store.begin().await?;
    let state = lock_state(&mut transaction, owner, id).await?;
    let Some(state) = state.filter(|state| !state.status.is_terminal()) else { return Ok(false) };
    let sql = "select id from jobs where id = $1 and lease_expires_at > (select now from db_now)";
    let leased = transaction.fetch_optional(sql, params![id]).await.context("reading the lease of a job")?;
    match leased {
        Some(_) => set_requested_action(&mut transaction, &state, Some(RequestedAction::Cancel)).await?,
        None => apply_transition(&mut transaction, &state, &state.transition_to(Status::Cancelled)).await?,
    }
    transaction.commit().await?;
    Ok(true)
}

/// Changes the status of a job whose row this transaction has locked, and adds the status event and, for a job that ends, the deliveries to
/// its owner's webhooks.
pub async fn apply_transition<D: Dialect>(
    transaction: &mut Transaction<D>,
    state: &JobState,
    transition: &Transition,
) -> Result<()> {
    let sequence = update_status(transaction, state, transition).await?.ok_or_else(|| errors::lease_lost(state.id))?;
    let event = job_state_machine::status_event(state.attempt, transition);
    events::insert_status(transaction, state.id, sequence, &event).await?;
    if transition.status == Status::Queued {
        transaction.record_change(Change::JobQueued(state.id));
    }
    if let Some(event) = WebhookEvent::of_status(transition.status)
        && webhook_deliveries::has_webhooks(transaction, state.id).await?
    {
        let job = find_by_id(transaction, state.id).await?;
        webhook_deliveries::add_for_job(transaction, &job, event).await?;
    }
    Ok(())
}

async fn insert<D: Dialect>(transaction: &mut Transaction<D>, job: &NewJob, json: &JobJsonColumns) -> Result<()> {
    let sql = "insert into jobs (id, owner, name, status, dataset_id, validation_dataset_id, options, spec, metadata,
                   created_by, priority, trace_context, base, kernels, last_sequence, created_at)
               values ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1, (select now from db_now))";
    let params = params![
        job.id,
        &job.owner,
        &job.name,
        job.dataset_id,
        job.validation_dataset_id,
        &json.options,
        &json.spec,
        &json.metadata,
        &job.created_by,
        i64::from(job.priority),
        &job.trace_context,
        job.spec.base(),
        job.spec.kernels(),
    ];
    match transaction.execute(sql, params).await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(errors::job_exists(job.id)),
        other => other.map(|_| ()).context("adding a job"),
    }
}

/// Serializes the additions of one owner, so that two of them cannot both take the last free slot of the queue.
async fn lock_owner_queue<D: Dialect>(transaction: &mut Transaction<D>, owner: &str) -> Result<()> {
    transaction.acquire_advisory_lock(&[owner]).await.context("waiting for another job of the same owner to be added")
}

async fn count_queued<D: Dialect>(transaction: &mut Transaction<D>, owner: &str) -> Result<u64> {
    let sql = "select count(*) as jobs from jobs where status = 'queued' and owner = $1";
    let row = transaction.fetch_one(sql, params![owner]).await.context("counting queued jobs")?;
    row_codec::decode_u64(&row, "jobs")
}

pub async fn find_by_id<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<Job> {
    let sql = select_jobs!("where id = $1");
    let row = transaction.fetch_optional(sql, params![id]).await.context("reading a job")?;
    row_codec::decode_job(&row.ok_or_else(|| errors::job_not_found(id))?)
}

pub async fn read<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Job> {
    let sql = select_jobs!("where id = $1 and owner = $2");
    let row = store.fetch_optional(sql, params![id, owner]).await.context("reading a job")?;
    row_codec::decode_job(&row.ok_or_else(|| errors::job_not_found(id))?)
}

pub async fn list<D: Dialect>(
    store: &SqlStore<D>,
    owner: &str,
    status: Option<Status>,
    page: PageRequest,
) -> Result<Vec<Job>> {
    let cursor = pagination::resolve_cursor(store, owner, page).await?;
    // A statement for each case, so that each uses its index.
    let rows = match status {
        None => {
            let sql = select_jobs!(
                "where owner = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4"
            );
            store.fetch_all(sql, params![owner, cursor.created_at, cursor.id, page.limit]).await
        }
        Some(status) => {
            let sql = select_jobs!(
                "where owner = $1 and status = $2 and (created_at, id) < ($3, $4)
                 order by created_at desc, id desc limit $5"
            );
            store.fetch_all(sql, params![owner, status.as_str(), cursor.created_at, cursor.id, page.limit]).await
        }
    };
    let rows = rows.context("listing jobs")?;
    rows.iter().map(row_codec::decode_job).collect()
}

pub async fn list_running<D: Dialect>(store: &SqlStore<D>, limit: u32) -> Result<Vec<Job>> {
    let sql = select_jobs!("where status = 'running' order by created_at desc, id desc limit $1");
    let rows = store.fetch_all(sql, params![limit]).await.context("listing the running jobs")?;
    rows.iter().map(row_codec::decode_job).collect()
}

pub async fn count_by_status<D: Dialect>(store: &SqlStore<D>) -> Result<Vec<(Status, u64)>> {
    let sql = "select status, count(*) as jobs from jobs group by status";
    let rows = store.fetch_all(sql, params![]).await.context("counting jobs")?;
    row_codec::decode_job_counts(&rows)
}

pub async fn resumable_ids<D: Dialect>(store: &SqlStore<D>, keep_checkpoints: Duration) -> Result<Vec<Uuid>> {
    let sql = "select id from jobs where status in ('queued', 'paused', 'running')
               union all
               select id from jobs where status = 'failed' and finished_at > (select now from db_now) - $1";
    let rows = store.fetch_all(sql, params![keep_checkpoints]).await.context("listing the resumable jobs")?;
    rows.iter().map(|row| row.uuid("id")).collect()
}

pub async fn lock_state<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    id: Uuid,
) -> Result<Option<JobState>> {
    let sql = select_job_states!("where id = $1 and owner = $2");
    let row = transaction
        .fetch_locked(sql, RowLock::Update, params![id, owner])
        .await
        .context("reading the state of a job")?;
    row.as_ref().map(row_codec::decode_job_state).transpose()
}

/// Locks a job until the transaction ends. Returns whether it is finished.
pub async fn lock_finished<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<bool> {
    let sql = "select id from jobs where id = $1 and finished_at is not null";
    let row = transaction.fetch_locked(sql, RowLock::Update, params![id]).await.context("locking a finished job")?;
    Ok(row.is_some())
}

async fn set_requested_action<D: Dialect>(
    transaction: &mut Transaction<D>,
    state: &JobState,
    action: Option<RequestedAction>,
) -> Result<()> {
    let sql = "update jobs set requested_action = $3 where id = $1 and lease_epoch = $2 and status = 'running'";
    let params = params![state.id, state.lease_epoch, action.map(RequestedAction::as_str)];
    transaction.execute(sql, params).await.context("writing the requested action of a job")?;
    transaction.record_change(Change::JobActionRequested(state.id));
    Ok(())
}

/// Returns the sequence number of the status event, or `None` if the row is no longer in the state `state`.
async fn update_status<D: Dialect>(
    transaction: &mut Transaction<D>,
    state: &JobState,
    transition: &Transition,
) -> Result<Option<i64>> {
    let sql = "update jobs set status = $4, requested_action = null, error = $5, metrics = $6, adapter_id = $7,
                   process_deaths = $8, internal_errors = $9,
                   next_attempt_at = case when $10 then (select now from db_now) + $11 end,
                   finished_at = case when $12 then (select now from db_now) end,
                   interrupted_at = case when $13 then (select now from db_now) end,
                   lease_expires_at = null, worker_instance = null, worker_process = null,
                   metrics_deleted_at = null, last_sequence = last_sequence + 1
               where id = $1 and lease_epoch = $2 and status = $3
               returning last_sequence";
    let error = row_codec::encode_error(transition.error.as_ref())?;
    let params = params![
        state.id,
        state.lease_epoch,
        state.status.as_str(),
        transition.status.as_str(),
        &error,
        &transition.metrics,
        transition.adapter_id,
        transition.process_deaths,
        transition.internal_errors,
        !transition.retry_delay.is_zero(),
        transition.retry_delay,
        transition.status.is_terminal(),
        transition.is_interrupted,
    ];
    let row = transaction.fetch_optional(sql, params).await.context("changing the status of a job")?;
    row.map(|row| row.integer("last_sequence")).transpose()
}
