//! Version of the keys and owners, which increases with every change of one.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::DecodeRow;
use espalier_core::error::Result;

pub async fn read<D: Dialect>(store: &SqlStore<D>) -> Result<i64> {
    let row = store.fetch_one("select version from access_version", params![]).await;
    row.context("reading the version of the keys")?.integer("version")
}

/// Makes every server read the keys and owners again.
pub async fn raise<D: Dialect>(transaction: &mut Transaction<D>) -> Result<()> {
    let sql = "update access_version set version = version + 1";
    transaction.execute(sql, params![]).await.context("raising the version of the keys")?;
    Ok(())
}
