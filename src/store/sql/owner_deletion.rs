//! Deletion of all rows of an owner, while `deleted_owners` refuses new ones.

use super::batch::BatchedDeletion;
use super::connection::SqlStore;
use super::database_error::Context;
use super::dialect::{Dialect, Row, params};
use super::row_codec::{self, DecodeRow};
use super::{access_version, adapters, datasets, jobs, retention};
use crate::store::changes::Change;
use crate::store::errors;
use crate::store::model::{DeletedFile, DeletedOwnerRows};
use espalier_core::error::Result;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

/// Other tables, and the condition of the owner's rows. They are deleted in one statement for each table, before the others: without
/// keys nobody adds more.
const OTHER_TABLES: [(&str, &str); 10] = [
    ("api_keys", "owner = $1"),
    ("owners", "name = $1"),
    ("usage_daily", "owner = $1"),
    ("job_turns", "owner = $1"),
    ("adapter_shares", "grantee = $1"),
    ("adapter_names", "owner = $1"),
    ("tombstones", "owner = $1"),
    ("idempotency_keys", "owner = $1"),
    ("webhook_deliveries", "webhook_id in (select id from webhooks where owner = $1)"),
    ("webhooks", "owner = $1"),
];

/// Rows that are read at once.
const ROWS_PER_READ: u32 = 1000;

/// Cancels the unfinished jobs of an owner that no worker runs, and requests the cancellation of those that one runs. Returns the jobs
/// of which it has done either.
pub async fn cancel_jobs<D: Dialect>(store: &SqlStore<D>, owner: &str) -> Result<Vec<Uuid>> {
    let sql = "select id from jobs where owner = $1 and status in ('queued', 'paused', 'running')
                   and (status <> 'running' or lease_expires_at <= (select now from db_now)
                        or coalesce(requested_action, '') <> 'cancel')";
    let rows = store.fetch_all(sql, params![owner]).await.context("listing the unfinished jobs of an owner")?;
    let mut cancelled = Vec::new();
    for row in &rows {
        let id = row.uuid("id")?;
        if jobs::cancel_without_worker(store, owner, id).await? {
            cancelled.push(id);
        }
    }
    Ok(cancelled)
}

/// Counts and lists the rows of an owner.
pub async fn find_rows<D: Dialect>(store: &SqlStore<D>, owner: &str) -> Result<DeletedOwnerRows> {
    let mut found = DeletedOwnerRows::default();
    let sql = "select id, hash as blob, bytes, (select count(*) from datasets as other
                   where other.hash = datasets.hash and other.owner <> $1) as other_owners
               from datasets where owner = $1";
    found.datasets = read_files(store, sql, owner).await?;
    let sql = "select id, version as blob, cast(description ->> 'bytes' as bigint) as bytes, (
                   select count(*) from adapters as other
                   where other.version = adapters.version and other.owner <> $1) as other_owners
               from adapters where owner = $1";
    found.adapters = read_files(store, sql, owner).await?;
    let rows = store.fetch_all("select id from jobs where owner = $1", params![owner]).await.context("listing jobs")?;
    found.jobs = rows.iter().map(|row| row.uuid("id")).collect::<Result<_>>()?;
    let sql = "select count(*) as rows from events where job_id in (select id from jobs where owner = $1)";
    let events = store.fetch_one(sql, params![owner]).await.context("counting events")?;
    found.count("events", row_codec::decode_u64(&events, "rows")?);
    for (table, rows) in
        [("datasets", found.datasets.len()), ("adapters", found.adapters.len()), ("jobs", found.jobs.len())]
    {
        found.count(table, rows as u64);
    }
    let mut transaction = store.begin().await?;
    for (table, condition) in OTHER_TABLES {
        let sql = AssertSqlSafe(format!("select count(*) as rows from {table} where {condition}"));
        let row = transaction.fetch_one(sql, params![owner]).await.context("counting the rows of an owner")?;
        found.count(table, row_codec::decode_u64(&row, "rows")?);
    }
    transaction.rollback().await?;
    Ok(found)
}

async fn read_files<D: Dialect>(store: &SqlStore<D>, sql: &'static str, owner: &str) -> Result<Vec<DeletedFile>> {
    let rows = store.fetch_all(sql, params![owner]).await.context("listing the files of an owner")?;
    rows.iter().map(decode_file::<D>).collect()
}

fn decode_file<D: Dialect>(row: &Row<D>) -> Result<DeletedFile> {
    Ok(DeletedFile {
        id: row.uuid("id")?,
        sha256: row.text("blob")?,
        bytes: row_codec::decode_u64(row, "bytes")?,
        shared: row.integer("other_owners")? > 0,
    })
}

/// Deletes all rows of an owner, except the one in `owner_deletions`.
///
/// # Errors
/// `Busy` (`owner_jobs_running`) if a job is not finished.
pub async fn delete_rows<D: Dialect>(store: &SqlStore<D>, owner: &str) -> Result<DeletedOwnerRows> {
    let mut deleted = DeletedOwnerRows::default();
    let mut batch = BatchedDeletion::new(store);
    for (table, condition) in OTHER_TABLES {
        let sql = AssertSqlSafe(format!("delete from {table} where {condition}"));
        let rows = batch.transaction().await?.execute(sql, params![owner]).await;
        let rows = rows.context("deleting the rows of an owner")?;
        deleted.count(table, rows);
        batch.count(rows).await?;
    }
    access_version::raise(batch.transaction().await?).await?;
    delete_adapters(&mut batch, owner, &mut deleted).await?;
    batch.transaction().await?.record_change(Change::Adapters);
    delete_jobs(&mut batch, owner, &mut deleted).await?;
    delete_datasets(&mut batch, owner, &mut deleted).await?;
    batch.commit().await?;
    Ok(deleted)
}

async fn delete_adapters<D: Dialect>(
    batch: &mut BatchedDeletion<'_, D>,
    owner: &str,
    deleted: &mut DeletedOwnerRows,
) -> Result<()> {
    let sql = "select id, version as blob, cast(description ->> 'bytes' as bigint) as bytes, cast(0 as bigint) as other_owners
               from adapters where owner = $1 limit $2";
    loop {
        let rows = batch.transaction().await?.fetch_all(sql, params![owner, ROWS_PER_READ]).await;
        let rows = rows.context("listing the adapters of an owner")?;
        for row in &rows {
            let mut file = decode_file::<D>(row)?;
            let transaction = batch.transaction().await?;
            adapters::delete_row(transaction, file.id).await?;
            file.shared = !adapters::is_unreferenced(transaction, &file.sha256).await?;
            deleted.count("adapters", 1);
            deleted.adapters.push(file);
            batch.count(1).await?;
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
}

async fn delete_jobs<D: Dialect>(
    batch: &mut BatchedDeletion<'_, D>,
    owner: &str,
    deleted: &mut DeletedOwnerRows,
) -> Result<()> {
    loop {
        let sql = "select id, finished_at from jobs where owner = $1 limit $2";
        let rows = batch.transaction().await?.fetch_all(sql, params![owner, ROWS_PER_READ]).await;
        let rows = rows.context("listing the jobs of an owner")?;
        for row in &rows {
            let id = row.uuid("id")?;
            if row.opt_timestamp("finished_at")?.is_none() {
                return Err(errors::owner_jobs_running(owner));
            }
            delete_job(batch, id, deleted).await?;
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
}

async fn delete_job<D: Dialect>(
    batch: &mut BatchedDeletion<'_, D>,
    id: Uuid,
    deleted: &mut DeletedOwnerRows,
) -> Result<()> {
    loop {
        let limit = batch.remaining();
        let events = retention::delete_job_rows(batch.transaction().await?, id, limit).await?;
        deleted.count("events", events);
        if events < limit {
            deleted.count("jobs", 1);
            deleted.jobs.push(id);
            return batch.count(events + 1).await;
        }
        batch.count(events).await?;
    }
}

async fn delete_datasets<D: Dialect>(
    batch: &mut BatchedDeletion<'_, D>,
    owner: &str,
    deleted: &mut DeletedOwnerRows,
) -> Result<()> {
    let sql =
        "select id, hash as blob, bytes, cast(0 as bigint) as other_owners from datasets where owner = $1 limit $2";
    loop {
        let rows = batch.transaction().await?.fetch_all(sql, params![owner, ROWS_PER_READ]).await;
        let rows = rows.context("listing the datasets of an owner")?;
        for row in &rows {
            let mut file = decode_file::<D>(row)?;
            let transaction = batch.transaction().await?;
            datasets::delete_row(transaction, file.id).await?;
            file.shared = !datasets::is_unreferenced(transaction, &file.sha256).await?;
            deleted.count("datasets", 1);
            deleted.datasets.push(file);
            batch.count(1).await?;
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
}
