//! The store's clock: SQLite's, and as far ahead of it as tests have moved it.

use super::SqliteStore;
use crate::store::row_decoding::DecodeRow;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Result};
use std::time::Duration;

pub async fn now(store: &SqliteStore) -> Result<DateTime<Utc>> {
    let row = sqlx::query("select now from db_now").fetch_one(&store.reader_pool).await.context("reading the clock")?;
    row.timestamp("now")
}

pub async fn advance(store: &SqliteStore, offset: Duration) -> Result<()> {
    let mut transaction = store.begin().await?;
    sqlx::query("update test_clock set clock_offset = clock_offset + $1")
        .bind(to_milliseconds(offset)?)
        .execute(&mut *transaction)
        .await
        .context("moving the clock")?;
    super::connection::commit(transaction).await
}

/// The unit of every time in the tables.
pub fn to_milliseconds(duration: Duration) -> Result<i64> {
    i64::try_from(duration.as_millis()).with_context(|| format!("a duration of {duration:?} is too long"))
}
