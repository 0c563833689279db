//! Statements on owners: their limits, and what they store.

use super::access_version;
use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::{self, DecodeRow};
use crate::store::model::{Owner, OwnerLimits, OwnerStorage};
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use std::collections::BTreeMap;

pub async fn set_limits<D: Dialect>(store: &SqlStore<D>, name: &str, limits: OwnerLimits) -> Result<Owner> {
    let limits = row_codec::to_storable_json("the owner's limits", &limits)?;
    let mut transaction = store.begin().await?;
    let sql = "insert into owners (name, limits, created_at) values ($1, $2, (select now from db_now))
               on conflict (name) do update set limits = excluded.limits
               returning name, limits, created_at";
    let row = transaction.fetch_one(sql, params![name, &limits]).await.context("setting the limits of an owner")?;
    let owner = decode(&row)?;
    access_version::raise(&mut transaction).await?;
    transaction.commit().await?;
    Ok(owner)
}

/// Owners with a row of their own.
pub async fn with_limits<D: Dialect>(store: &SqlStore<D>) -> Result<Vec<Owner>> {
    let rows = store.fetch_all("select name, limits, created_at from owners order by name", params![]).await;
    rows.context("reading the owners")?.iter().map(decode).collect()
}

/// Owners with a row of any kind. An owner without limits of its own is as old as its oldest row.
pub async fn list<D: Dialect>(store: &SqlStore<D>) -> Result<Vec<Owner>> {
    let sql = "select owner, min(created_at) as created_at from (
                   select owner, created_at from api_keys
                   union all select owner, min(created_at) from jobs group by owner
                   union all select owner, min(created_at) from datasets group by owner
                   union all select owner, min(created_at) from adapters group by owner
               ) as rows group by owner";
    let rows = store.fetch_all(sql, params![]).await.context("listing the owners")?;
    let mut owners = BTreeMap::new();
    for row in &rows {
        let created_at: DateTime<Utc> = row.timestamp("created_at")?;
        let name = row.text("owner")?;
        owners.insert(name.clone(), Owner { name, limits: OwnerLimits::default(), created_at });
    }
    owners.extend(with_limits(store).await?.into_iter().map(|owner| (owner.name.clone(), owner)));
    Ok(owners.into_values().collect())
}

pub async fn storage<D: Dialect>(store: &SqlStore<D>, owner: &str) -> Result<OwnerStorage> {
    let row = store.fetch_one(STORAGE, params![owner]).await.context("measuring what an owner stores")?;
    decode_storage(&row)
}

/// What an owner stores, while no other transaction that checks its limits adds to it.
pub async fn lock_storage<D: Dialect>(transaction: &mut Transaction<D>, owner: &str) -> Result<OwnerStorage> {
    transaction.acquire_advisory_lock(&["storage", owner]).await.context("waiting for an upload of the same owner")?;
    storage_in(transaction, owner).await
}

pub async fn storage_in<D: Dialect>(transaction: &mut Transaction<D>, owner: &str) -> Result<OwnerStorage> {
    let row = transaction.fetch_one(STORAGE, params![owner]).await.context("measuring what an owner stores")?;
    decode_storage(&row)
}

const STORAGE: &str = "
    select dataset_count, dataset_bytes, dataset_rows, adapter_count, adapter_bytes from (
        select count(*) as dataset_count, cast(coalesce(sum(bytes), 0) as bigint) as dataset_bytes,
            cast(coalesce(sum(cast(report ->> 'rows' as bigint)), 0) as bigint) as dataset_rows
        from datasets where owner = $1
    ) as stored_datasets cross join (
        select count(*) as adapter_count,
            cast(coalesce(sum(cast(description ->> 'bytes' as bigint)), 0) as bigint) as adapter_bytes
        from adapters where owner = $1
    ) as stored_adapters";

fn decode_storage(row: &impl DecodeRow) -> Result<OwnerStorage> {
    Ok(OwnerStorage {
        datasets: row_codec::decode_u64(row, "dataset_count")?,
        dataset_bytes: row_codec::decode_u64(row, "dataset_bytes")?,
        dataset_rows: row_codec::decode_u64(row, "dataset_rows")?,
        adapters: row_codec::decode_u64(row, "adapter_count")?,
        adapter_bytes: row_codec::decode_u64(row, "adapter_bytes")?,
    })
}

fn decode(row: &impl DecodeRow) -> Result<Owner> {
    Ok(Owner {
        name: row.text("name")?,
        limits: row_codec::decode_json(row, "limits")?,
        created_at: row.timestamp("created_at")?,
    })
}
