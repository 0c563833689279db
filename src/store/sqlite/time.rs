//! The store's clock: SQLite's, and as far ahead of it as tests have moved it.

use super::Sqlite;
use crate::store::columns::Columns;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Result};
use std::time::Duration;

pub async fn now(store: &Sqlite) -> Result<DateTime<Utc>> {
    let row = sqlx::query("select now from present").fetch_one(&store.readers).await.context("reading the clock")?;
    row.time("now")
}

pub async fn advance(store: &Sqlite, by: Duration) -> Result<()> {
    let mut transaction = store.begin().await?;
    sqlx::query("update clock set ahead = ahead + $1")
        .bind(milliseconds(by)?)
        .execute(&mut *transaction)
        .await
        .context("moving the clock")?;
    super::connection::commit(transaction).await
}

/// The unit of every time in the tables.
pub fn milliseconds(duration: Duration) -> Result<i64> {
    i64::try_from(duration.as_millis()).with_context(|| format!("a duration of {duration:?} is too long"))
}
