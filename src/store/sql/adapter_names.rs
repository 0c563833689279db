//! Statements on the names of adapters. A name points to the adapter that was added or activated last.

use super::connection::Transaction;
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec;
use crate::store::model::{Adapter, NewAdapter};
use espalier_core::error::Result;
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
        None => delete_name(transaction, adapter.id).await,
    }
}

/// Serializes the additions and deletions of adapters of one name, so that the adapter that [`repoint_to_previous`]
/// selects still exists when the transaction commits.
pub async fn lock_name<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    transaction.acquire_advisory_lock(&[owner, name]).await.context("locking a name")
}

/// Points a name to an adapter.
pub async fn upsert<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    name: &str,
    adapter: Uuid,
) -> Result<()> {
    let params = params![owner, name, adapter];
    let sql = "update adapters set superseded_at = case when id = $3 then null else (select now from db_now) end
               where id = $3 or id = (select adapter_id from adapter_names where owner = $1 and name = $2)";
    transaction.execute(sql, params).await.context("recording which adapter is superseded")?;
    let sql = "insert into adapter_names (owner, name, adapter_id) values ($1, $2, $3)
               on conflict (owner, name) do update set adapter_id = excluded.adapter_id";
    transaction.execute(sql, params).await.context("pointing a name to an adapter")?;
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
    row_codec::decode_id(row.as_ref())
}

/// Changes nothing if the name points to an adapter other than `from`.
async fn repoint<D: Dialect>(transaction: &mut Transaction<D>, from: Uuid, to: Uuid) -> Result<()> {
    let sql = "update adapter_names set adapter_id = $2 where adapter_id = $1";
    if transaction.execute(sql, params![from, to]).await.context("pointing a name to an earlier adapter")? > 0 {
        let sql = "update adapters set superseded_at = null where id = $1";
        transaction.execute(sql, params![to]).await.context("recording which adapter is current")?;
    }
    Ok(())
}

async fn delete_name<D: Dialect>(transaction: &mut Transaction<D>, adapter: Uuid) -> Result<()> {
    let sql = "delete from adapter_names where adapter_id = $1";
    transaction.execute(sql, params![adapter]).await.context("deleting the name of the last adapter that had it")?;
    Ok(())
}
