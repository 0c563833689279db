//! Statements about names: each points to one adapter, the newest that was given it.

use super::connection::Transaction;
use crate::store::model::{Adapter, NewAdapter};
use crate::store::row_decoding::DecodeRow;
use espalier_core::error::{Context, Result};
use uuid::Uuid;

/// The name of a new adapter, where it has one, points to it from now on.
pub async fn point_to(transaction: &mut Transaction, adapter: &NewAdapter) -> Result<()> {
    match &adapter.name {
        Some(name) => upsert(transaction, &adapter.owner, name, adapter.id).await,
        None => Ok(()),
    }
}

/// The name of an adapter that is about to be deleted falls back to the newest of those left.
pub async fn repoint_to_previous(transaction: &mut Transaction, adapter: &Adapter) -> Result<()> {
    let Some(name) = &adapter.name else { return Ok(()) };
    match newest_except(transaction, &adapter.owner, name, adapter.id).await? {
        Some(previous) => repoint(transaction, adapter.id, previous).await,
        None => delete_row(transaction, adapter.id).await,
    }
}

/// Until this transaction ends, nobody else adds or deletes an adapter of this name: they do it in an order, and whoever
/// makes the name fall back finds an adapter that stays.
pub async fn lock_name(transaction: &mut Transaction, owner: &str, name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, hashtextextended($2, 0)))")
        .bind(owner)
        .bind(name)
        .execute(&mut **transaction)
        .await
        .context("holding a name")?;
    Ok(())
}

async fn upsert(transaction: &mut Transaction, owner: &str, name: &str, adapter: Uuid) -> Result<()> {
    sqlx::query(
        "insert into adapter_names (owner, name, adapter_id) values ($1, $2, $3)
         on conflict (owner, name) do update set adapter_id = excluded.adapter_id",
    )
    .bind(owner)
    .bind(name)
    .bind(adapter)
    .execute(&mut **transaction)
    .await
    .context("pointing a name to its newest adapter")?;
    Ok(())
}

async fn newest_except(transaction: &mut Transaction, owner: &str, name: &str, excluded: Uuid) -> Result<Option<Uuid>> {
    let row = sqlx::query(
        "select id from adapters where owner = $1 and name = $2 and id <> $3
         order by created_at desc, id desc limit 1",
    )
    .bind(owner)
    .bind(name)
    .bind(excluded)
    .fetch_optional(&mut **transaction)
    .await
    .context("looking for the adapter that a name falls back to")?;
    row.map(|row| row.uuid("id")).transpose()
}

/// Only where the name points to the one that goes: it may point to another already.
async fn repoint(transaction: &mut Transaction, from: Uuid, to: Uuid) -> Result<()> {
    sqlx::query("update adapter_names set adapter_id = $2 where adapter_id = $1")
        .bind(from)
        .bind(to)
        .execute(&mut **transaction)
        .await
        .context("pointing a name to an earlier adapter")?;
    Ok(())
}

async fn delete_row(transaction: &mut Transaction, adapter: Uuid) -> Result<()> {
    sqlx::query("delete from adapter_names where adapter_id = $1")
        .bind(adapter)
        .execute(&mut **transaction)
        .await
        .context("forgetting the name of the last adapter that had it")?;
    Ok(())
}
