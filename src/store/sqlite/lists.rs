//! Where a page of a list begins.

use super::Sqlite;
use super::connection::Transaction;
use crate::store::columns::Columns;
use crate::store::model::Page;
use crate::store::values::Boundary;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Result};
use uuid::Uuid;

pub async fn boundary(store: &Sqlite, owner: &str, page: Page) -> Result<Boundary> {
    match page.after {
        Some(id) => Boundary::new(page, place(store, owner, id).await?),
        None => Boundary::new(page, None),
    }
}

async fn place(store: &Sqlite, owner: &str, id: Uuid) -> Result<Option<DateTime<Utc>>> {
    let row = sqlx::query(
        "select created_at from datasets where id = $1 and owner = $2
         union all select created_at from jobs where id = $1 and owner = $2
         union all select created_at from adapters where id = $1 and owner = $2
         union all select created_at from deleted where id = $1 and owner = $2",
    )
    .bind(id)
    .bind(owner)
    .fetch_optional(&store.readers)
    .await
    .context("finding the row that a page begins after")?;
    row.map(|row| row.time("created_at")).transpose()
}

/// A row that is about to be deleted keeps its place for whoever pages through the list.
pub async fn keep_place(transaction: &mut Transaction, owner: &str, id: Uuid, created_at: DateTime<Utc>) -> Result<()> {
    sqlx::query("insert into deleted (id, owner, created_at) values ($1, $2, $3)")
        .bind(id)
        .bind(owner)
        .bind(created_at.timestamp_millis())
        .execute(&mut **transaction)
        .await
        .context("keeping the place of a deleted row")?;
    Ok(())
}
