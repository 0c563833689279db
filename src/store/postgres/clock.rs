//! The store's clock: the server's, and as far ahead of it as tests have moved it.

use super::PostgresStore;
use crate::store::row_decoding::DecodeRow;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Result};
use std::time::Duration;

pub async fn now(store: &PostgresStore) -> Result<DateTime<Utc>> {
    let row = sqlx::query("select now from db_now").fetch_one(&store.pool).await.context("reading the clock")?;
    row.timestamp("now")
}

pub async fn advance(store: &PostgresStore, offset: Duration) -> Result<()> {
    let mut transaction = store.begin().await?;
    sqlx::query("update test_clock set clock_offset = clock_offset + make_interval(secs => $1)")
        .bind(offset.as_secs_f64())
        .execute(&mut *transaction)
        .await
        .context("moving the clock")?;
    super::connection::commit(transaction).await
}
