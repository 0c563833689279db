//! Statements on the usage of each day.

use super::connection::SqlStore;
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::{self, DecodeRow, to_sql_integer};
use crate::store::model::{UsageCounts, UsageIncrement, UsageRow};
use chrono::NaiveDate;
use espalier_core::error::{Error, Result};

pub async fn add<D: Dialect>(store: &SqlStore<D>, increments: &[UsageIncrement]) -> Result<()> {
    let day = days_since_1970(store.now().await?.date_naive());
    let mut transaction = store.begin().await?;
    let sql = "insert into usage_daily as stored (owner, day, adapter, requests, input_tokens, output_tokens)
               values ($1, $2, $3, $4, $5, $6)
               on conflict (owner, day, adapter) do update set
                   requests = stored.requests + excluded.requests,
                   input_tokens = stored.input_tokens + excluded.input_tokens,
                   output_tokens = stored.output_tokens + excluded.output_tokens";
    for UsageIncrement { owner, adapter, counts } in increments {
        let params = params![
            owner,
            day,
            adapter,
            to_sql_integer(counts.requests)?,
            to_sql_integer(counts.input_tokens)?,
            to_sql_integer(counts.output_tokens)?,
        ];
        transaction.execute(sql, params).await.context("adding to the usage of today")?;
    }
    transaction.commit().await
}

pub async fn list<D: Dialect>(
    store: &SqlStore<D>,
    owner: Option<&str>,
    since: NaiveDate,
    until: NaiveDate,
) -> Result<Vec<UsageRow>> {
    let sql = "select owner, day, adapter, requests, input_tokens, output_tokens from usage_daily
               where ($1 is null or owner = $1) and day between $2 and $3 order by day, owner, adapter";
    let params = params![owner, days_since_1970(since), days_since_1970(until)];
    let rows = store.fetch_all(sql, params).await.context("reading the usage")?;
    rows.iter().map(decode).collect()
}

fn days_since_1970(day: NaiveDate) -> i64 {
    day.signed_duration_since(NaiveDate::default()).num_days()
}

fn decode(row: &impl DecodeRow) -> Result<UsageRow> {
    let days = row.integer("day")?;
    let day = chrono::TimeDelta::try_days(days).and_then(|days| NaiveDate::default().checked_add_signed(days));
    Ok(UsageRow {
        owner: row.text("owner")?,
        day: day.ok_or_else(|| Error::internal(format!("the column day holds no day: {days}")))?,
        adapter: row.text("adapter")?,
        counts: UsageCounts {
            requests: row_codec::decode_u64(row, "requests")?,
            input_tokens: row_codec::decode_u64(row, "input_tokens")?,
            output_tokens: row_codec::decode_u64(row, "output_tokens")?,
        },
    })
}
