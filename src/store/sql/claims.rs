//! Claims of jobs. Jobs that were running before go on first; otherwise the owners take turns, and each turn starts the owner's next job.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, Param, RowLock, params};
use super::jobs::{self, select_job_states};
use super::row_codec::{self, DecodeRow};
use super::{datasets, events, turns};
use crate::store::errors;
use crate::store::job_state_machine::{self, ClaimDecision, JobState};
use crate::store::model::{ClaimRules, ClaimedJob, Dataset, Lease, Platform, WorkerId};
use espalier_core::error::Result;
use std::time::Duration;
use uuid::Uuid;

/// A job whose row this transaction has locked.
struct Candidate {
    state: JobState,
    /// Owner whose turn it is; `None` if the job goes on without a turn.
    turn_of: Option<String>,
}

/// Claims the next job. Jobs ahead of it that cannot run get their final or requested status in the same transaction.
pub async fn claim<D: Dialect>(
    store: &SqlStore<D>,
    worker: &WorkerId,
    rules: &ClaimRules,
) -> Result<Option<ClaimedJob>> {
    // An idle worker only reads, because a write would lock the other writers of an SQLite file out.
    if !has_claimable(store, &rules.platform).await? {
        return Ok(None);
    }
    let mut transaction = store.begin().await?;
    // One claim at a time, so that each knows the turns that the others have taken.
    transaction.acquire_advisory_lock(&["jobs", "claim"]).await.context("waiting for another claim")?;
    let mut claimed = None;
    while claimed.is_none() {
        let Some(Candidate { state, turn_of }) = next_candidate(&mut transaction, rules).await? else { break };
        match job_state_machine::decide_claim(&state, worker.process_id, rules.max_attempts) {
            ClaimDecision::Claim { process_deaths } => {
                let state = JobState { process_deaths, ..state };
                claimed = try_claim(&mut transaction, &state, worker, rules.lease_duration).await?;
                if let (Some(_), Some(owner)) = (&claimed, &turn_of) {
                    turns::take(&mut transaction, owner).await?;
                }
            }
            ClaimDecision::Transition(transition) => {
                jobs::apply_transition(&mut transaction, &state, &transition).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(claimed)
}

/// Claims a job whose row this transaction has locked. A job whose dataset is lost fails instead and returns `None`, so
/// that it does not block the queue.
async fn try_claim<D: Dialect>(
    transaction: &mut Transaction<D>,
    state: &JobState,
    worker: &WorkerId,
    lease_duration: Duration,
) -> Result<Option<ClaimedJob>> {
    let job = jobs::find_by_id(transaction, state.id).await?;
    let dataset = datasets::find_by_id(transaction, job.dataset_id).await?;
    let validation: Option<Option<Dataset>> = match job.validation_dataset_id {
        Some(id) => datasets::find_by_id(transaction, id).await?.map(Some),
        None => Some(None),
    };
    let (Some(dataset), Some(validation_dataset)) = (dataset, validation) else {
        let failed = state.fail(&errors::dataset_gone_for_job(job.dataset_id));
        jobs::apply_transition(transaction, state, &failed).await?;
        return Ok(None);
    };
    let (epoch, sequence) = start_attempt(transaction, state, worker, lease_duration).await?;
    let event = job_state_machine::running_event(state.attempt + 1);
    events::insert_status(transaction, state.id, sequence, &event).await?;
    let job = jobs::find_by_id(transaction, state.id).await?;
    Ok(Some(ClaimedJob { lease: Lease { job_id: job.id, epoch }, job, dataset, validation_dataset }))
}

/// Condition of a queued job that need not wait after a failed attempt.
macro_rules! queued_and_due {
    () => {
        "status = 'queued' and coalesce(next_attempt_at <= (select now from db_now), true)"
    };
}

/// SQL condition: the job has the base `$1` and the kernel set `$2`.
macro_rules! of_platform {
    () => {
        "base = $1 and kernels = $2"
    };
}

/// SQL condition: an earlier version added the job and wrote no platform. Every worker claims it, and the attempt compares the platforms.
macro_rules! of_any_platform {
    () => {
        "base is null"
    };
}

/// SQL condition: a worker of the platform claims the job. It uses no index, so use it only beside a condition that few jobs fulfil.
macro_rules! on_platform {
    () => {
        concat!("(", of_platform!(), " or ", of_any_platform!(), ")")
    };
}

/// Queued job that is due, in the order of the index `jobs_unfinished_by_platform`.
macro_rules! unfinished_and_due {
    ($platform:expr) => {
        // The first line of the condition is that of the index.
        concat!(
            "select id from jobs where status in ('queued', 'running') and ",
            queued_and_due!(),
            " and ",
            $platform,
            " order by created_at, id limit 1"
        )
    };
}

/// Next queued job of an owner that is due, in the order of the index `jobs_queued_by_platform`.
macro_rules! due_of_owner {
    ($select:expr, $owner:literal, $platform:expr) => {
        concat!(
            $select,
            "where owner = ",
            $owner,
            " and ",
            queued_and_due!(),
            " and ",
            $platform,
            " order by priority desc, created_at, id limit 1"
        )
    };
}

async fn has_claimable<D: Dialect>(store: &SqlStore<D>, platform: &Platform) -> Result<bool> {
    // The order makes Postgres read the index `jobs_by_lease`: it takes a third of all jobs to be expired, and would scan the table.
    let expired = concat!(
        "select id from jobs where lease_expires_at <= (select now from db_now) and ",
        on_platform!(),
        " order by lease_expires_at limit 1"
    );
    let of_platform = unfinished_and_due!(of_platform!());
    let params: &[Param<'_>] = params![&platform.base, &platform.kernels];
    for (sql, params) in [(expired, params), (of_platform, params), (unfinished_and_due!(of_any_platform!()), &[])] {
        if store.fetch_optional(sql, params).await.context("looking for the next job")?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Locks the next job. Jobs that another transaction has locked are skipped.
async fn next_candidate<D: Dialect>(transaction: &mut Transaction<D>, rules: &ClaimRules) -> Result<Option<Candidate>> {
    let expired = concat!(
        select_job_states!("where lease_expires_at <= (select now from db_now) and "),
        on_platform!(),
        " order by lease_expires_at, id limit 1"
    );
    let interrupted = concat!(
        select_job_states!("where interrupted_at is not null and "),
        on_platform!(),
        " order by interrupted_at, id limit 1"
    );
    let platform = &rules.platform;
    for sql in [expired, interrupted] {
        let params = params![&platform.base, &platform.kernels];
        let row = transaction.fetch_locked(sql, RowLock::UpdateSkipLocked, params).await;
        if let Some(row) = row.context("looking for an interrupted job")? {
            return Ok(Some(Candidate { state: row_codec::decode_job_state(&row)?, turn_of: None }));
        }
    }
    for turn in turns::waiting(transaction, rules.max_running_per_owner).await? {
        if let Some(state) = next_of_owner(transaction, &turn.owner, platform).await? {
            return Ok(Some(Candidate { state, turn_of: Some(turn.owner) }));
        }
    }
    Ok(None)
}

/// Locks the owner's job that has the highest priority and is the oldest of these.
async fn next_of_owner<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    platform: &Platform,
) -> Result<Option<JobState>> {
    let of_platform = due_of_owner!(select_job_states!(""), "$3", of_platform!());
    let of_any = due_of_owner!(select_job_states!(""), "$1", of_any_platform!());
    let platform: &[Param<'_>] = params![&platform.base, &platform.kernels, owner];
    for (sql, params) in [(of_platform, platform), (of_any, params![owner].as_slice())] {
        let row = transaction.fetch_locked(sql, RowLock::UpdateSkipLocked, params).await;
        if let Some(row) = row.context("looking for the next job of an owner")? {
            return row_codec::decode_job_state(&row).map(Some);
        }
    }
    Ok(None)
}

/// See [`Store::is_turn_of_another_owner`](crate::store::Store::is_turn_of_another_owner).
pub async fn is_turn_of_another_owner<D: Dialect>(
    store: &SqlStore<D>,
    job: Uuid,
    time_slice: Duration,
    max_running: Option<u64>,
) -> Result<bool> {
    let last_of_owner = "select owner, base, kernels from jobs as mine
                         where mine.id = $1 and mine.status = 'running' and not exists (
                             select 1 from jobs as other
                             where other.status = 'running' and other.owner = mine.owner
                                 and (other.priority < mine.priority
                                     or other.priority = mine.priority and (other.created_at, other.id) > (mine.created_at, mine.id))
                         )";
    let row = store.fetch_optional(last_of_owner, params![job]).await.context("reading a running job")?;
    let Some(row) = row else { return Ok(false) };
    let of_platform = due_of_owner!("select 1 from jobs ", "$3", of_platform!());
    let of_any = due_of_owner!("select 1 from jobs ", "$1", of_any_platform!());
    let (base, kernels) = (row.opt_text("base")?, row.opt_text("kernels")?);
    for turn in turns::waiting_with_less_use(store, &row.text("owner")?, time_slice, max_running).await? {
        let owner = turn.owner.as_str();
        let platform: &[Param<'_>] = params![&base, &kernels, owner];
        for (sql, params) in [(of_platform, platform), (of_any, params![owner].as_slice())] {
            let queued = store.fetch_optional(sql, params).await;
            if queued.context("looking for the job of another owner")?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns the new lease epoch and the sequence number of the status event.
async fn start_attempt<D: Dialect>(
    transaction: &mut Transaction<D>,
    state: &JobState,
    worker: &WorkerId,
    lease_duration: Duration,
) -> Result<(i64, i64)> {
    let sql = "update jobs set status = 'running', lease_epoch = lease_epoch + 1,
                   lease_expires_at = (select now from db_now) + $4, worker_instance = $5, worker_process = $6,
                   attempt = attempt + 1, process_deaths = $7, next_attempt_at = null, interrupted_at = null, error = null,
                   started_at = coalesce(started_at, (select now from db_now)), last_sequence = last_sequence + 1
               where id = $1 and lease_epoch = $2 and status = $3
               returning lease_epoch, last_sequence";
    let params = params![
        state.id,
        state.lease_epoch,
        state.status.as_str(),
        lease_duration,
        worker.instance_id,
        worker.process_id,
        state.process_deaths,
    ];
    let row = transaction.fetch_one(sql, params).await.context("claiming the next job")?;
    Ok((row.integer("lease_epoch")?, row.integer("last_sequence")?))
}
