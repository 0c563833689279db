//! Statements about adapters.

use super::PostgresStore;
use super::connection::{Transaction, commit};
use super::{adapter_names, pagination};
use crate::store::errors;
use crate::store::model::{Adapter, NewAdapter, PageRequest, Reference};
use crate::store::row_decoding::{self, DecodeRow};
use crate::store::row_encoding;
use espalier_core::error::{Context, Result};
use serde_json::Value;
use sqlx::postgres::PgRow;
use uuid::Uuid;

/// The columns of an [`Adapter`], and where they come from.
macro_rules! select_adapters {
    ($rest:literal) => {
        concat!("select id, owner, name, job_id, description, created_at from adapters ", $rest)
    };
}

pub async fn add(store: &PostgresStore, adapter: &NewAdapter) -> Result<Adapter> {
    let mut transaction = store.begin().await?;
    let added = insert_with_name(&mut transaction, adapter).await?;
    commit(transaction).await?;
    Ok(added)
}

pub async fn insert_with_name(transaction: &mut Transaction, adapter: &NewAdapter) -> Result<Adapter> {
    let description = row_encoding::encode_description(adapter)?;
    adapter_names::lock_name(transaction, &adapter.owner, adapter.name.as_deref()).await?;
    insert(transaction, adapter, description).await?;
    adapter_names::point_to(transaction, adapter).await?;
    find_by_id(transaction, &adapter.owner, adapter.id).await
}

pub async fn resolve(store: &PostgresStore, owner: &str, reference: &Reference) -> Result<Adapter> {
    if reference.contains_nul() {
        return Err(errors::adapter_not_found(reference));
    }
    let row = match reference {
        Reference::Id(id) => read_by_id(store, owner, *id).await?,
        Reference::Name(name) => read_by_name(store, owner, name).await?,
        Reference::Version(name, version_prefix) => {
            let versions = versions_with_prefix(store, owner, name, version_prefix).await?;
            if versions.len() > 1 {
                return Err(errors::ambiguous_version(name, version_prefix));
            }
            newest_with_version_prefix(store, owner, name, version_prefix).await?
        }
    };
    row_decoding::decode_adapter(&row.ok_or_else(|| errors::adapter_not_found(reference))?)
}

pub async fn delete(store: &PostgresStore, owner: &str, id: Uuid) -> Result<Option<String>> {
    let mut transaction = store.begin().await?;
    let adapter = find_by_id(&mut transaction, owner, id).await?;
    adapter_names::lock_name(&mut transaction, owner, adapter.name.as_deref()).await?;
    lock_for_update(&mut transaction, id).await?.ok_or_else(|| errors::adapter_not_found(&Reference::Id(id)))?;
    if let Some(job) = unfinished_job_starting_from(&mut transaction, owner, &adapter.description.version).await? {
        return Err(errors::adapter_in_use(id, job));
    }
    adapter_names::repoint_to_previous(&mut transaction, &adapter).await?;
    delete_row(&mut transaction, id).await?;
    pagination::insert_tombstone(&mut transaction, owner, id, adapter.created_at).await?;
    let version = adapter.description.version;
    let remaining = find_any_with_version(&mut transaction, &version).await?;
    commit(transaction).await?;
    Ok(remaining.is_none().then_some(version))
}

/// Under one name, who comes later is newer, however fast they come and whatever the clock does.
async fn insert(transaction: &mut Transaction, adapter: &NewAdapter, description: Value) -> Result<()> {
    let result = sqlx::query(
        "insert into adapters (id, owner, name, job_id, version, description, created_at)
         values ($1, $2, $3, $4, $5, $6,
             greatest((select now from db_now),
                 (select max(created_at) + interval '1 microsecond' from adapters where owner = $2 and name = $3)))",
    )
    .bind(adapter.id)
    .bind(&adapter.owner)
    .bind(&adapter.name)
    .bind(adapter.job_id)
    .bind(&adapter.description.version)
    .bind(description)
    .execute(&mut **transaction)
    .await;
    match result {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(errors::adapter_exists(adapter.id)),
        other => other.map(|_| ()).context("adding an adapter"),
    }
}

async fn find_by_id(transaction: &mut Transaction, owner: &str, id: Uuid) -> Result<Adapter> {
    let row = sqlx::query(select_adapters!("where id = $1 and owner = $2"))
        .bind(id)
        .bind(owner)
        .fetch_optional(&mut **transaction)
        .await
        .context("reading an adapter")?;
    row_decoding::decode_adapter(&row.ok_or_else(|| errors::adapter_not_found(&Reference::Id(id)))?)
}

async fn lock_for_update(transaction: &mut Transaction, id: Uuid) -> Result<Option<Uuid>> {
    let row = sqlx::query("select id from adapters where id = $1 for update")
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await
        .context("holding an adapter")?;
    row.map(|row| row.uuid("id")).transpose()
}

async fn read_by_id(store: &PostgresStore, owner: &str, id: Uuid) -> Result<Option<PgRow>> {
    sqlx::query(select_adapters!("where id = $1 and owner = $2"))
        .bind(id)
        .bind(owner)
        .fetch_optional(&store.pool)
        .await
        .context("reading an adapter")
}

async fn read_by_name(store: &PostgresStore, owner: &str, name: &str) -> Result<Option<PgRow>> {
    sqlx::query(select_adapters!("where id = (select adapter_id from adapter_names where owner = $1 and name = $2)"))
        .bind(owner)
        .bind(name)
        .fetch_optional(&store.pool)
        .await
        .context("reading an adapter by its name")
}

/// Two at most: more are as ambiguous.
async fn versions_with_prefix(
    store: &PostgresStore,
    owner: &str,
    name: &str,
    version_prefix: &str,
) -> Result<Vec<PgRow>> {
    sqlx::query(
        "select distinct version from adapters
         where owner = $1 and name = $2 and substr(version, 1, length($3)) = $3 limit 2",
    )
    .bind(owner)
    .bind(name)
    .bind(version_prefix)
    .fetch_all(&store.pool)
    .await
    .context("looking for a version")
}

async fn newest_with_version_prefix(
    store: &PostgresStore,
    owner: &str,
    name: &str,
    version_prefix: &str,
) -> Result<Option<PgRow>> {
    sqlx::query(select_adapters!(
        "where owner = $1 and name = $2 and substr(version, 1, length($3)) = $3
         order by created_at desc, id desc limit 1"
    ))
    .bind(owner)
    .bind(name)
    .bind(version_prefix)
    .fetch_optional(&store.pool)
    .await
    .context("reading an adapter by its version")
}

pub async fn list(store: &PostgresStore, owner: &str, page: PageRequest) -> Result<Vec<Adapter>> {
    let cursor = pagination::resolve_cursor(store, owner, page).await?;
    let rows = sqlx::query(select_adapters!(
        "where owner = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4"
    ))
    .bind(owner)
    .bind(cursor.created_at)
    .bind(cursor.id)
    .bind(i64::from(page.limit))
    .fetch_all(&store.pool)
    .await
    .context("listing adapters")?;
    rows.iter().map(row_decoding::decode_adapter).collect()
}

async fn delete_row(transaction: &mut Transaction, id: Uuid) -> Result<()> {
    sqlx::query("delete from adapters where id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await
        .context("deleting an adapter")?;
    Ok(())
}

async fn find_any_with_version(transaction: &mut Transaction, version: &str) -> Result<Option<Uuid>> {
    let row = sqlx::query("select id from adapters where version = $1 limit 1")
        .bind(version)
        .fetch_optional(&mut **transaction)
        .await
        .context("looking for adapters of the same version")?;
    row.map(|row| row.uuid("id")).transpose()
}

/// Keeps an adapter of this version from being deleted until this transaction ends.
pub async fn lock_version_for_share(transaction: &mut Transaction, owner: &str, version: &str) -> Result<Option<Uuid>> {
    let row = sqlx::query("select id from adapters where owner = $1 and version = $2 limit 1 for share")
        .bind(owner)
        .bind(version)
        .fetch_optional(&mut **transaction)
        .await
        .context("looking for the adapter that a job starts from")?;
    row.map(|row| row.uuid("id")).transpose()
}

async fn unfinished_job_starting_from(
    transaction: &mut Transaction,
    owner: &str,
    version: &str,
) -> Result<Option<Uuid>> {
    let row = sqlx::query(
        "select id from jobs
         where owner = $1 and status in ('queued', 'paused', 'running')
             and spec -> 'from_adapter' ->> 'version' = $2
         limit 1",
    )
    .bind(owner)
    .bind(version)
    .fetch_optional(&mut **transaction)
    .await
    .context("looking for jobs that start from an adapter")?;
    row.map(|row| row.uuid("id")).transpose()
}

pub async fn versions(store: &PostgresStore) -> Result<Vec<String>> {
    let rows = sqlx::query("select distinct version from adapters order by version")
        .fetch_all(&store.pool)
        .await
        .context("listing the versions of adapters")?;
    rows.iter().map(|row| row.text("version")).collect()
}
