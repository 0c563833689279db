//! The store's clock: the server's, and as far ahead of it as tests have moved it.

use super::Postgres;
use crate::store::columns::Columns;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Result};
use std::time::Duration;

pub async fn now(store: &Postgres) -> Result<DateTime<Utc>> {
    let row = sqlx::query("select now from present").fetch_one(&store.pool).await.context("reading the clock")?;
    row.time("now")
}

pub async fn advance(store: &Postgres, by: Duration) -> Result<()> {
    let mut transaction = store.begin().await?;
    sqlx::query("update clock set ahead = ahead + make_interval(secs => $1)")
        .bind(by.as_secs_f64())
        .execute(&mut *transaction)
        .await
        .context("moving the clock")?;
    super::connection::commit(transaction).await
}
