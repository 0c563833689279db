//! Keyset pagination: the cursor of a list, and tombstones that keep cursors valid after deletes.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::DecodeRow;
use crate::store::errors;
use crate::store::model::PageRequest;
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use uuid::Uuid;

/// Sort key of the last row of the previous page. Lists are sorted by creation time, then by id, both descending.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    pub created_at: DateTime<Utc>,
    pub id: Uuid,
}

impl Cursor {
    /// Sorts before every row: the year 9999, which both databases can store.
    pub const START: Self = Self {
        created_at: DateTime::from_timestamp_millis(253_402_300_799_000).expect("is in range"),
        id: Uuid::max(),
    };
}

/// Finds the cursor of a page.
///
/// # Errors
/// `Invalid` (`unknown_after`) if the owner never had a row with the id `page.after`.
pub async fn resolve_cursor<D: Dialect>(store: &SqlStore<D>, owner: &str, page: PageRequest) -> Result<Cursor> {
    let Some(id) = page.after else { return Ok(Cursor::START) };
    let created_at = created_at_of(store, owner, id).await?.ok_or_else(|| errors::unknown_cursor(id))?;
    Ok(Cursor { created_at, id })
}

async fn created_at_of<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Option<DateTime<Utc>>> {
    let sql = "select created_at from datasets where id = $1 and owner = $2
               union all select created_at from jobs where id = $1 and owner = $2
               union all select created_at from adapters where id = $1 and owner = $2
               union all select created_at from webhooks where id = $1 and owner = $2
               union all select created_at from tombstones where id = $1 and owner = $2";
    let row =
        store.fetch_optional(sql, params![id, owner]).await.context("finding the row that a page begins after")?;
    row.map(|row| row.timestamp("created_at")).transpose()
}

/// Records the sort key of a row that this transaction deletes.
pub async fn insert_tombstone<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    id: Uuid,
    created_at: DateTime<Utc>,
) -> Result<()> {
    let sql =
        "insert into tombstones (id, owner, created_at, deleted_at) values ($1, $2, $3, (select now from db_now))";
    transaction.execute(sql, params![id, owner, created_at]).await.context("adding a tombstone")?;
    Ok(())
}
