//! Statements on owners: their limits, and what they store.

use super::access_version;
use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::{self, DecodeRow};
use crate::store::model::{Owner, OwnerLimits, OwnerStorage};
use espalier_core::error::Result;
use std::collections::{BTreeMap, HashMap};

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

/// Oldest row of each owner, of the rows that `$condition` selects.
macro_rules! oldest_rows {
    ($condition:literal) => {
        concat!(
            "select owner, min(created_at) as created_at from (
                 select owner, created_at from api_keys ",
            $condition,
            " union all select owner, min(created_at) from jobs ",
            $condition,
            " group by owner union all select owner, min(created_at) from datasets ",
            $condition,
            " group by owner union all select owner, min(created_at) from adapters ",
            $condition,
            " group by owner) as rows group by owner"
        )
    };
}

/// Owners with a row of any kind, and what they store. An owner without limits of its own is as old as its oldest row.
pub async fn list<D: Dialect>(store: &SqlStore<D>) -> Result<Vec<(Owner, OwnerStorage)>> {
    let rows = store.fetch_all(oldest_rows!(""), params![]).await.context("listing the owners")?;
    let without_limits = rows.iter().map(decode_without_limits).collect::<Result<Vec<Owner>>>()?;
    let rows = store.fetch_all(STORAGE_BY_OWNER, params![]).await.context("measuring what owners store")?;
    let storage =
        rows.iter().map(|row| Ok((row.text("owner")?, decode_storage(row)?))).collect::<Result<HashMap<_, _>>>()?;
    let owners = without_limits.into_iter().chain(with_limits(store).await?);
    let by_name: BTreeMap<String, Owner> = owners.map(|owner| (owner.name.clone(), owner)).collect();
    Ok(by_name
        .into_values()
        .map(|owner| {
            let storage = storage.get(&owner.name).copied().unwrap_or_default();
            (owner, storage)
        })
        .collect())
}

/// An owner with a row of any kind.
pub async fn find<D: Dialect>(store: &SqlStore<D>, name: &str) -> Result<Option<Owner>> {
    let sql = "select name, limits, created_at from owners where name = $1";
    if let Some(row) = store.fetch_optional(sql, params![name]).await.context("reading an owner")? {
        return decode(&row).map(Some);
    }
    let row = store.fetch_optional(oldest_rows!("where owner = $1"), params![name]).await;
    row.context("reading an owner")?.as_ref().map(decode_without_limits).transpose()
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

const STORAGE_BY_OWNER: &str = "
    select owner, cast(sum(dataset_count) as bigint) as dataset_count, cast(sum(dataset_bytes) as bigint) as dataset_bytes,
        cast(sum(dataset_rows) as bigint) as dataset_rows, cast(sum(adapter_count) as bigint) as adapter_count,
        cast(sum(adapter_bytes) as bigint) as adapter_bytes
    from (
        select owner, 1 as dataset_count, bytes as dataset_bytes, cast(report ->> 'rows' as bigint) as dataset_rows,
            0 as adapter_count, 0 as adapter_bytes
        from datasets
        union all
        select owner, 0, 0, 0, 1, cast(description ->> 'bytes' as bigint) from adapters
    ) as stored group by owner";

fn decode_storage(row: &impl DecodeRow) -> Result<OwnerStorage> {
    Ok(OwnerStorage {
        datasets: row_codec::decode_u64(row, "dataset_count")?,
        dataset_bytes: row_codec::decode_u64(row, "dataset_bytes")?,
        dataset_rows: row_codec::decode_u64(row, "dataset_rows")?,
        adapters: row_codec::decode_u64(row, "adapter_count")?,
        adapter_bytes: row_codec::decode_u64(row, "adapter_bytes")?,
    })
}

fn decode_without_limits(row: &impl DecodeRow) -> Result<Owner> {
    Ok(Owner { name: row.text("owner")?, limits: OwnerLimits::default(), created_at: row.timestamp("created_at")? })
}

fn decode(row: &impl DecodeRow) -> Result<Owner> {
    Ok(Owner {
        name: row.text("name")?,
        limits: row_codec::decode_json(row, "limits")?,
        created_at: row.timestamp("created_at")?,
    })
}
