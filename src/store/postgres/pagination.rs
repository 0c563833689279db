//! Where a page of a list begins.

use super::PostgresStore;
use super::connection::Transaction;
use crate::store::model::PageRequest;
use crate::store::row_decoding::DecodeRow;
use crate::store::row_encoding::Cursor;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Result};
use uuid::Uuid;

pub async fn resolve_cursor(store: &PostgresStore, owner: &str, page: PageRequest) -> Result<Cursor> {
    match page.after {
        Some(id) => Cursor::new(page, created_at_of(store, owner, id).await?),
        None => Cursor::new(page, None),
    }
}

async fn created_at_of(store: &PostgresStore, owner: &str, id: Uuid) -> Result<Option<DateTime<Utc>>> {
    let row = sqlx::query(
        "select created_at from datasets where id = $1 and owner = $2
         union all select created_at from jobs where id = $1 and owner = $2
         union all select created_at from adapters where id = $1 and owner = $2
         union all select created_at from tombstones where id = $1 and owner = $2",
    )
    .bind(id)
    .bind(owner)
    .fetch_optional(&store.pool)
    .await
    .context("finding the row that a page begins after")?;
    row.map(|row| row.timestamp("created_at")).transpose()
}

/// A row that is about to be deleted keeps its place for whoever pages through the list.
pub async fn insert_tombstone(
    transaction: &mut Transaction,
    owner: &str,
    id: Uuid,
    created_at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query("insert into tombstones (id, owner, created_at) values ($1, $2, $3)")
        .bind(id)
        .bind(owner)
        .bind(created_at)
        .execute(&mut **transaction)
        .await
        .context("keeping the place of a deleted row")?;
    Ok(())
}
