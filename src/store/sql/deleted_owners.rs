//! Owners whose data is being deleted: a row in `owner_deletions` keeps everybody from adding rows for the owner until the deletion is
//! finished.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::DecodeRow;
use crate::store::errors;
use espalier_core::error::Result;
use std::time::Duration;

/// Tables to which requests and workers add rows.
const TABLES_WITH_WRITERS: [&str; 3] = ["adapters", "jobs", "datasets"];

/// Fails while everything of the owner is being deleted. Call it after the transaction has written a row of the owner:
/// [`begin`] waits for the transactions that have written before.
///
/// # Errors
/// `Conflict` (`owner_being_deleted`).
pub async fn check_owner<D: Dialect>(transaction: &mut Transaction<D>, owner: &str) -> Result<()> {
    let sql = "select owner from owner_deletions where owner = $1";
    match transaction.fetch_optional(sql, params![owner]).await.context("checking the owner")? {
        Some(_) => Err(errors::owner_being_deleted(owner)),
        None => Ok(()),
    }
}

/// Keeps everybody from adding rows for the owner, and waits for the transactions that are adding some.
pub async fn begin<D: Dialect>(store: &SqlStore<D>, owner: &str) -> Result<()> {
    let mut transaction = store.begin().await?;
    let sql = "insert into owner_deletions (owner, started_at) values ($1, (select now from db_now))
               on conflict (owner) do update set started_at = excluded.started_at";
    transaction.execute(sql, params![owner]).await.context("beginning to delete an owner")?;
    transaction.commit().await?;
    for table in TABLES_WITH_WRITERS {
        let mut transaction = store.begin().await?;
        transaction.wait_for_writers(table).await.context("waiting for other writers")?;
        transaction.commit().await?;
    }
    Ok(())
}

/// Owners whose deletion began longer ago than `age` and is not finished.
pub async fn unfinished<D: Dialect>(store: &SqlStore<D>, age: Duration) -> Result<Vec<String>> {
    let sql = "select owner from owner_deletions where started_at < (select now from db_now) - $1 order by owner";
    let rows = store.fetch_all(sql, params![age]).await.context("listing the owners that are being deleted")?;
    rows.iter().map(|row| row.text("owner")).collect()
}

/// Allows rows of the owner again.
pub async fn finish<D: Dialect>(store: &SqlStore<D>, owner: &str) -> Result<()> {
    let mut transaction = store.begin().await?;
    let sql = "delete from owner_deletions where owner = $1";
    transaction.execute(sql, params![owner]).await.context("finishing the deletion of an owner")?;
    transaction.commit().await
}
