//! Statements and transactions that delete finished jobs, their events, and superseded versions of adapters.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::DecodeRow;
use super::{adapters, jobs, pagination};
use crate::store::errors;
use crate::store::model::{DeletedRows, RetentionPolicy};
use espalier_core::error::{Error, Result};
use std::time::Duration;
use uuid::Uuid;

/// Rows deleted in one transaction, so that other writers need not wait long.
const BATCH: u32 = 100;

pub async fn delete_job<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<()> {
    let mut transaction = store.begin().await?;
    match delete_finished_job(&mut transaction, owner, id).await {
        Ok(()) => transaction.commit().await,
        Err(error) => {
            // At once, so that a claim does not skip the job because its row is still locked.
            transaction.rollback().await?;
            Err(error)
        }
    }
}

pub async fn delete_old_rows<D: Dialect>(store: &SqlStore<D>, policy: &RetentionPolicy) -> Result<DeletedRows> {
    let mut deleted = DeletedRows::default();
    if let Some(age) = policy.keep_jobs {
        deleted.jobs = delete_old_jobs(store, age).await?;
    }
    if let Some(age) = policy.keep_events {
        deleted.events = delete_old_events(store, age).await?;
    }
    if let Some(count) = policy.keep_versions {
        delete_superseded_versions(store, count, &mut deleted).await?;
    }
    Ok(deleted)
}

async fn delete_old_jobs<D: Dialect>(store: &SqlStore<D>, age: Duration) -> Result<u64> {
    let sql = "select id, owner from jobs where finished_at < (select now from db_now) - $1
               order by finished_at limit $2";
    let mut deleted = 0;
    loop {
        let rows = store.fetch_all(sql, params![age, BATCH]).await.context("looking for old jobs")?;
        let mut transaction = store.begin().await?;
        for row in &rows {
            match delete_finished_job(&mut transaction, &row.text("owner")?, row.uuid("id")?).await {
                Ok(()) => deleted += 1,
                // Deleted or retried since.
                Err(Error::NotFound(_) | Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        transaction.commit().await?;
        if rows.len() < BATCH as usize {
            return Ok(deleted);
        }
    }
}

/// Deletes the metrics of old jobs; their status events stay with them.
async fn delete_old_events<D: Dialect>(store: &SqlStore<D>, age: Duration) -> Result<u64> {
    let sql = "select id from jobs where finished_at < (select now from db_now) - $1
                   and exists (select 1 from events where job_id = jobs.id and kind = 'metrics')
               limit $2";
    let mut deleted = 0;
    loop {
        let rows = store.fetch_all(sql, params![age, BATCH]).await.context("looking for old events")?;
        let mut transaction = store.begin().await?;
        for row in &rows {
            let sql = "delete from events where job_id = $1 and kind = 'metrics'";
            deleted += transaction.execute(sql, params![row.uuid("id")?]).await.context("deleting events")?;
        }
        transaction.commit().await?;
        if rows.len() < BATCH as usize {
            return Ok(deleted);
        }
    }
}

/// Deletes all but the `count` newest adapters of each name, except those that their name points to and those that an unfinished job
/// starts from.
async fn delete_superseded_versions<D: Dialect>(
    store: &SqlStore<D>,
    count: u32,
    deleted: &mut DeletedRows,
) -> Result<()> {
    let sql = "select id, owner from (
                   select id, owner,
                       row_number() over (partition by owner, name order by created_at desc, id desc) as rank
                   from adapters where name is not null
               ) as ranked
               where rank > $1 and not exists (select 1 from adapter_names where adapter_id = ranked.id)";
    let rows = store.fetch_all(sql, params![count]).await.context("looking for superseded adapters")?;
    for row in &rows {
        match adapters::delete(store, &row.text("owner")?, row.uuid("id")?).await {
            Ok(version) => {
                deleted.adapters += 1;
                deleted.unreferenced_versions.extend(version);
            }
            // Deleted since, or in use.
            Err(Error::NotFound(_) | Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Deletes a job with its events. Its adapter stays, without the job.
async fn delete_finished_job<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, id: Uuid) -> Result<()> {
    let state = jobs::lock_state(transaction, owner, id).await?.ok_or_else(|| errors::job_not_found(id))?;
    if !state.status.is_terminal() {
        return Err(errors::job_active(id, state.status));
    }
    let created_at = jobs::find_by_id(transaction, id).await?.created_at;
    for sql in [
        "update adapters set job_id = null where job_id = $1",
        "delete from events where job_id = $1",
        "delete from jobs where id = $1",
    ] {
        transaction.execute(sql, params![id]).await.context("deleting a job")?;
    }
    pagination::insert_tombstone(transaction, owner, id, created_at).await
}
