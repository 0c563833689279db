//! Statements on adapter names. A name points to the newest adapter that was added under it.

use super::connection::Transaction;
use super::dialect::{Dialect, params};
use super::row_decoding;
use crate::store::model::{Adapter, NewAdapter};
use espalier_core::error::{Context, Result};
use uuid::Uuid;

/// Points the name of a new adapter, if it has one, to this adapter.
pub async fn point_to<D: Dialect>(transaction: &mut Transaction<D>, adapter: &NewAdapter) -> Result<()> {
    match &adapter.name {
        Some(name) => upsert(transaction, &adapter.owner, name, adapter.id).await,
        None => Ok(()),
    }
}

/// Points the name of an adapter that this transaction deletes to the newest of the other adapters of that name, or
/// deletes the name.
pub async fn repoint_to_previous<D: Dialect>(transaction: &mut Transaction<D>, adapter: &Adapter) -> Result<()> {
    let Some(name) = &adapter.name else { return Ok(()) };
    match newest_except(transaction, &adapter.owner, name, adapter.id).await? {
        Some(previous) => repoint(transaction, adapter.id, previous).await,
        None => delete_row(transaction, adapter.id).await,
    }
}

/// Serializes the additions and deletions of adapters of one name, so that the adapter that [`repoint_to_previous`]
/// selects still exists when the transaction commits.
pub async fn lock_name<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    transaction.acquire_advisory_lock(&[owner, name]).await.context("locking a name")
}

async fn upsert<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, name: &str, adapter: Uuid) -> Result<()> {
    let sql = "insert into adapter_names (owner, name, adapter_id) values ($1, $2, $3)
               on conflict (owner, name) do update set adapter_id = excluded.adapter_id";
    let params = params![owner, name, adapter];
    transaction.execute(sql, params).await.context("pointing a name to its newest adapter")?;
    Ok(())
}

async fn newest_except<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    name: &str,
    excluded: Uuid,
) -> Result<Option<Uuid>> {
    let sql = "select id from adapters where owner = $1 and name = $2 and id <> $3
               order by created_at desc, id desc limit 1";
    let params = params![owner, name, excluded];
    let row = transaction.fetch_optional(sql, params).await.context("looking for the previous adapter of a name")?;
    row_decoding::decode_id(row.as_ref())
}

/// Changes nothing if the name points to an adapter other than `from`.
async fn repoint<D: Dialect>(transaction: &mut Transaction<D>, from: Uuid, to: Uuid) -> Result<()> {
    let sql = "update adapter_names set adapter_id = $2 where adapter_id = $1";
    transaction.execute(sql, params![from, to]).await.context("pointing a name to an earlier adapter")?;
    Ok(())
}

async fn delete_row<D: Dialect>(transaction: &mut Transaction<D>, adapter: Uuid) -> Result<()> {
    let sql = "delete from adapter_names where adapter_id = $1";
    transaction.execute(sql, params![adapter]).await.context("deleting the name of the last adapter that had it")?;
    Ok(())
}
