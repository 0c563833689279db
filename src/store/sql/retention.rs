//! Retention: finds and deletes finished jobs, their metrics events, unused datasets and superseded adapters.

use super::batch::BatchedDeletion;
use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::{self, DecodeRow, to_sql_integer};
use super::{adapters, datasets, expired_files, jobs, pagination};
use crate::store::errors;
use crate::store::model::{DeletedKind, DeletedRows, RetentionPolicy};
use espalier_core::error::{Error, Result};
use std::collections::HashSet;
use std::time::Duration;
use uuid::Uuid;

/// Jobs that are read at once.
const JOBS_PER_READ: u32 = 1000;

/// How long the id of a deleted row is valid as the cursor of a list.
const KEEP_TOMBSTONES: Duration = Duration::from_secs(30 * 24 * 3600);

pub async fn delete_job<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<()> {
    let mut batch = BatchedDeletion::new(store);
    match delete_finished_job(&mut batch, owner, id).await {
        Ok(()) => batch.commit().await,
        Err(error) => {
            // At once, so that a claim does not skip the job because its row is still locked.
            batch.rollback().await?;
            Err(error)
        }
    }
}

/// Deletes the rows that the policy does not keep.
pub async fn delete_old_rows<D: Dialect>(store: &SqlStore<D>, policy: &RetentionPolicy) -> Result<DeletedRows> {
    let mut deleted = DeletedRows { jobs: delete_old_jobs(store, policy).await?, ..DeletedRows::default() };
    if let Some(age) = policy.keep_events {
        deleted.events = delete_old_metrics(store, age).await?;
    }
    for file in expired_files::datasets(store, policy).await? {
        let age = policy.keep_datasets.unwrap_or_default();
        if let Some(freed) = skip_changed(datasets::delete_unused(store, &file.owner, file.id, age).await)? {
            deleted.datasets.add(file.id, freed.as_ref().map_or(0, |_| file.bytes));
            deleted.unreferenced_hashes.extend(freed);
        }
    }
    for file in expired_files::adapters(store, policy).await? {
        if let Some(freed) = skip_changed(adapters::delete_superseded(store, &file.owner, file.id).await)? {
            deleted.adapters.add(file.id, freed.as_ref().map_or(0, |_| file.bytes));
            deleted.unreferenced_versions.extend(freed);
        }
    }
    delete_old_tombstones(store).await?;
    Ok(deleted)
}

/// Finds the rows that [`delete_old_rows`] would delete now.
pub async fn find_old_rows<D: Dialect>(store: &SqlStore<D>, policy: &RetentionPolicy) -> Result<DeletedRows> {
    let expired = expired_jobs(store, policy, i64::MAX).await?;
    let mut found = DeletedRows::default();
    expired.iter().for_each(|(id, _)| found.jobs.add(*id, 0));
    if let Some(age) = policy.keep_events {
        let expired: HashSet<Uuid> = expired.into_iter().map(|(id, _)| id).collect();
        found.events = count_old_metrics(store, age, &expired).await?;
    }
    (found.datasets, found.unreferenced_hashes) = expired_files::sum(expired_files::datasets(store, policy).await?);
    (found.adapters, found.unreferenced_versions) = expired_files::sum(expired_files::adapters(store, policy).await?);
    Ok(found)
}

/// `None` for a row that has been deleted, used or locked since it was found.
fn skip_changed<T>(deletion: Result<T>) -> Result<Option<T>> {
    match deletion {
        Ok(deleted) => Ok(Some(deleted)),
        Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn delete_old_jobs<D: Dialect>(store: &SqlStore<D>, policy: &RetentionPolicy) -> Result<DeletedKind> {
    let mut deleted = DeletedKind::default();
    let mut batch = BatchedDeletion::new(store);
    loop {
        let jobs = expired_jobs(store, policy, i64::from(JOBS_PER_READ)).await?;
        let count_before = deleted.count;
        for (id, owner) in &jobs {
            if skip_changed(delete_finished_job(&mut batch, owner, *id).await)?.is_some() {
                deleted.add(*id, 0);
            }
        }
        batch.commit().await?;
        if deleted.count == count_before {
            return Ok(deleted);
        }
    }
}

/// Finished jobs that are too old, and those beyond the maximum number of their owner; at most about `limit` of each.
async fn expired_jobs<D: Dialect>(
    store: &SqlStore<D>,
    policy: &RetentionPolicy,
    limit: i64,
) -> Result<Vec<(Uuid, String)>> {
    let mut rows = Vec::new();
    if let Some(age) = policy.keep_jobs {
        let sql = "select id, owner from jobs where finished_at < (select now from db_now) - $1
                   order by finished_at limit $2";
        rows.extend(store.fetch_all(sql, params![age, limit]).await.context("looking for old jobs")?);
    }
    if let Some(count) = policy.max_finished_jobs {
        for owner in job_owners(store).await? {
            let sql = "select id, owner from jobs where owner = $1 and finished_at is not null
                       order by finished_at desc, id desc limit $2 offset $3";
            let params = params![&owner, limit, count];
            rows.extend(store.fetch_all(sql, params).await.context("looking for the oldest jobs of an owner")?);
        }
    }
    let jobs = rows.iter().map(|row| Ok((row.uuid("id")?, row.text("owner")?))).collect::<Result<Vec<_>>>()?;
    let mut known = HashSet::new();
    Ok(jobs.into_iter().filter(|(id, _)| known.insert(*id)).collect())
}

/// Owners of jobs. A statement for each owner, which reads one entry of the index, instead of one that reads the whole index.
async fn job_owners<D: Dialect>(store: &SqlStore<D>) -> Result<Vec<String>> {
    let sql = "select min(owner) as owner from jobs where owner > $1";
    let mut owners = vec![String::new()];
    loop {
        let last = &owners[owners.len() - 1];
        let row = store.fetch_one(sql, params![last]).await.context("listing the owners of jobs")?;
        match row.opt_text("owner")? {
            Some(owner) => owners.push(owner),
            None => return Ok(owners.split_off(1)),
        }
    }
}

/// Deletes the metrics of old jobs; their status events stay with them.
async fn delete_old_metrics<D: Dialect>(store: &SqlStore<D>, age: Duration) -> Result<u64> {
    let sql = "select id from jobs where finished_at < (select now from db_now) - $1 and metrics_deleted_at is null
               order by finished_at limit $2";
    let mut deleted = 0;
    let mut batch = BatchedDeletion::new(store);
    loop {
        let jobs = store.fetch_all(sql, params![age, JOBS_PER_READ]).await.context("looking for old events")?;
        for job in &jobs {
            deleted += delete_metrics(&mut batch, job.uuid("id")?).await?;
        }
        batch.commit().await?;
        if jobs.len() < JOBS_PER_READ as usize {
            return Ok(deleted);
        }
    }
}

/// Deletes the metrics of a job, unless it is no longer finished. Returns their number.
async fn delete_metrics<D: Dialect>(batch: &mut BatchedDeletion<'_, D>, job: Uuid) -> Result<u64> {
    let sql = "delete from events where job_id = $1 and kind = 'metrics' and sequence in (
                   select sequence from events where job_id = $1 and kind = 'metrics' order by sequence limit $2)";
    let mut deleted = 0;
    loop {
        let limit = batch.remaining();
        let transaction = batch.transaction().await?;
        if !jobs::lock_finished(transaction, job).await? {
            return Ok(deleted);
        }
        let rows = transaction.execute(sql, params![job, to_sql_integer(limit)?]).await.context("deleting events")?;
        deleted += rows;
        if rows < limit {
            let sql = "update jobs set metrics_deleted_at = (select now from db_now) where id = $1";
            transaction.execute(sql, params![job]).await.context("marking a job without metrics")?;
            batch.count(rows + 1).await?;
            return Ok(deleted);
        }
        batch.count(rows).await?;
    }
}

async fn count_old_metrics<D: Dialect>(store: &SqlStore<D>, age: Duration, except: &HashSet<Uuid>) -> Result<u64> {
    let sql = "select id, (select count(*) from events where job_id = jobs.id and kind = 'metrics') as metrics
               from jobs where finished_at < (select now from db_now) - $1 and metrics_deleted_at is null";
    let rows = store.fetch_all(sql, params![age]).await.context("counting old events")?;
    let mut count = 0;
    for row in &rows {
        if !except.contains(&row.uuid("id")?) {
            count += row_codec::decode_u64(row, "metrics")?;
        }
    }
    Ok(count)
}

async fn delete_old_tombstones<D: Dialect>(store: &SqlStore<D>) -> Result<()> {
    let sql = "delete from tombstones where id in (
                   select id from tombstones where deleted_at < (select now from db_now) - $1 limit $2)";
    let mut batch = BatchedDeletion::new(store);
    loop {
        let limit = batch.remaining();
        let params = params![KEEP_TOMBSTONES, to_sql_integer(limit)?];
        let rows = batch.transaction().await?.execute(sql, params).await.context("deleting tombstones")?;
        batch.count(rows).await?;
        if rows < limit {
            return batch.commit().await;
        }
    }
}

/// Deletes a finished job with its events. Its adapter stays, without the job.
async fn delete_finished_job<D: Dialect>(batch: &mut BatchedDeletion<'_, D>, owner: &str, id: Uuid) -> Result<()> {
    loop {
        let limit = batch.remaining();
        let transaction = batch.transaction().await?;
        let state = jobs::lock_state(transaction, owner, id).await?.ok_or_else(|| errors::job_not_found(id))?;
        if !state.status.is_terminal() {
            return Err(errors::job_active(id, state.status));
        }
        let created_at = jobs::find_by_id(transaction, id).await?.created_at;
        let rows = delete_job_rows(transaction, id, limit).await?;
        if rows < limit {
            pagination::insert_tombstone(transaction, owner, id, created_at).await?;
            return batch.count(rows + 1).await;
        }
        batch.count(rows).await?;
    }
}

/// Deletes at most `limit` events of a job. Deletes the job too if these are fewer. Returns the number of events.
pub async fn delete_job_rows<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid, limit: u64) -> Result<u64> {
    let sql = "delete from events where job_id = $1 and sequence in (
                   select sequence from events where job_id = $1 order by sequence limit $2)";
    let params = params![id, to_sql_integer(limit)?];
    let rows = transaction.execute(sql, params).await.context("deleting the events of a job")?;
    if rows < limit {
        for sql in ["update adapters set job_id = null where job_id = $1", "delete from jobs where id = $1"] {
            transaction.execute(sql, params![id]).await.context("deleting a job")?;
        }
    }
    Ok(rows)
}
