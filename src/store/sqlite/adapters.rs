//! Statements about adapters.

use super::Sqlite;
use super::connection::{Transaction, commit};
use super::{lists, names};
use crate::store::columns::{self, Columns};
use crate::store::model::{Adapter, NewAdapter, Page, Reference};
use crate::store::problems;
use crate::store::values;
use espalier_core::error::{Context, Result};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

/// The columns of an [`Adapter`], and where they come from.
macro_rules! select_adapters {
    ($rest:literal) => {
        concat!("select id, owner, name, job_id, description, created_at from adapters ", $rest)
    };
}

pub async fn add(store: &Sqlite, adapter: &NewAdapter) -> Result<Adapter> {
    let mut transaction = store.begin().await?;
    let added = insert_and_name(&mut transaction, adapter).await?;
    commit(transaction).await?;
    Ok(added)
}

pub async fn insert_and_name(transaction: &mut Transaction, adapter: &NewAdapter) -> Result<Adapter> {
    insert(transaction, adapter, values::description(adapter)?).await?;
    names::move_to(transaction, adapter).await?;
    by_id(transaction, &adapter.owner, adapter.id).await
}

pub async fn read(store: &Sqlite, owner: &str, reference: &Reference) -> Result<Adapter> {
    let row = match reference {
        Reference::Id(id) => with_id(store, owner, *id).await?,
        Reference::Name(name) => named(store, owner, name).await?,
        Reference::Version(name, digits) => {
            let versions = versions_of(store, owner, name, digits).await?;
            if versions.len() > 1 {
                return Err(problems::ambiguous_version(name, digits));
            }
            newest_of_version(store, owner, name, digits).await?
        }
    };
    columns::adapter(&row.ok_or_else(|| problems::no_adapter(reference))?)
}

pub async fn delete(store: &Sqlite, owner: &str, id: Uuid) -> Result<Option<String>> {
    let mut transaction = store.begin().await?;
    let adapter = by_id(&mut transaction, owner, id).await?;
    if let Some(job) = open_job_from(&mut transaction, owner, &adapter.description.version).await? {
        return Err(problems::adapter_in_use(id, job));
    }
    names::leave(&mut transaction, &adapter).await?;
    remove(&mut transaction, id).await?;
    lists::keep_place(&mut transaction, owner, id, adapter.created_at).await?;
    let version = adapter.description.version;
    let left = any_of_version(&mut transaction, &version).await?;
    commit(transaction).await?;
    Ok(left.is_none().then_some(version))
}

/// Under one name, who comes later is newer, however fast they come and whatever the clock does.
async fn insert(transaction: &mut Transaction, adapter: &NewAdapter, description: Value) -> Result<()> {
    let outcome = sqlx::query(
        "insert into adapters (id, owner, name, job_id, version, description, created_at)
         values ($1, $2, $3, $4, $5, $6,
             max((select now from present), coalesce(
                 (select max(created_at) + 1 from adapters where owner = $2 and name = $3), 0)))",
    )
    .bind(adapter.id)
    .bind(&adapter.owner)
    .bind(&adapter.name)
    .bind(adapter.job_id)
    .bind(&adapter.description.version)
    .bind(description)
    .execute(&mut **transaction)
    .await;
    match outcome {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(problems::adapter_exists(adapter.id)),
        other => other.map(|_| ()).context("adding an adapter"),
    }
}

async fn by_id(transaction: &mut Transaction, owner: &str, id: Uuid) -> Result<Adapter> {
    let row = sqlx::query(select_adapters!("where id = $1 and owner = $2"))
        .bind(id)
        .bind(owner)
        .fetch_optional(&mut **transaction)
        .await
        .context("reading an adapter")?;
    columns::adapter(&row.ok_or_else(|| problems::no_adapter(&Reference::Id(id)))?)
}

async fn with_id(store: &Sqlite, owner: &str, id: Uuid) -> Result<Option<SqliteRow>> {
    sqlx::query(select_adapters!("where id = $1 and owner = $2"))
        .bind(id)
        .bind(owner)
        .fetch_optional(&store.readers)
        .await
        .context("reading an adapter")
}

async fn named(store: &Sqlite, owner: &str, name: &str) -> Result<Option<SqliteRow>> {
    sqlx::query(select_adapters!("where id = (select adapter_id from names where owner = $1 and name = $2)"))
        .bind(owner)
        .bind(name)
        .fetch_optional(&store.readers)
        .await
        .context("reading an adapter by its name")
}

/// Two at most: more are as ambiguous.
async fn versions_of(store: &Sqlite, owner: &str, name: &str, digits: &str) -> Result<Vec<SqliteRow>> {
    sqlx::query(
        "select distinct version from adapters
         where owner = $1 and name = $2 and substr(version, 1, length($3)) = $3 limit 2",
    )
    .bind(owner)
    .bind(name)
    .bind(digits)
    .fetch_all(&store.readers)
    .await
    .context("looking for a version")
}

async fn newest_of_version(store: &Sqlite, owner: &str, name: &str, digits: &str) -> Result<Option<SqliteRow>> {
    sqlx::query(select_adapters!(
        "where owner = $1 and name = $2 and substr(version, 1, length($3)) = $3
         order by created_at desc, id desc limit 1"
    ))
    .bind(owner)
    .bind(name)
    .bind(digits)
    .fetch_optional(&store.readers)
    .await
    .context("reading an adapter by its version")
}

pub async fn list(store: &Sqlite, owner: &str, page: Page) -> Result<Vec<Adapter>> {
    let boundary = lists::boundary(store, owner, page).await?;
    let rows = sqlx::query(select_adapters!(
        "where owner = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4"
    ))
    .bind(owner)
    .bind(boundary.created_at.timestamp_millis())
    .bind(boundary.id)
    .bind(i64::from(page.limit))
    .fetch_all(&store.readers)
    .await
    .context("listing adapters")?;
    rows.iter().map(columns::adapter).collect()
}

async fn remove(transaction: &mut Transaction, id: Uuid) -> Result<()> {
    sqlx::query("delete from adapters where id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await
        .context("deleting an adapter")?;
    Ok(())
}

async fn any_of_version(transaction: &mut Transaction, version: &str) -> Result<Option<Uuid>> {
    let row = sqlx::query("select id from adapters where version = $1 limit 1")
        .bind(version)
        .fetch_optional(&mut **transaction)
        .await
        .context("looking for adapters of the same version")?;
    row.map(|row| row.id("id")).transpose()
}

/// An adapter of this version: nobody else writes until this transaction ends.
pub async fn share_version(transaction: &mut Transaction, owner: &str, version: &str) -> Result<Option<Uuid>> {
    let row = sqlx::query("select id from adapters where owner = $1 and version = $2 limit 1")
        .bind(owner)
        .bind(version)
        .fetch_optional(&mut **transaction)
        .await
        .context("looking for the adapter that a job starts from")?;
    row.map(|row| row.id("id")).transpose()
}

async fn open_job_from(transaction: &mut Transaction, owner: &str, version: &str) -> Result<Option<Uuid>> {
    let row = sqlx::query(
        "select id from jobs
         where owner = $1 and status in ('queued', 'paused', 'running')
             and json_extract(spec, '$.from_adapter.version') = $2
         limit 1",
    )
    .bind(owner)
    .bind(version)
    .fetch_optional(&mut **transaction)
    .await
    .context("looking for jobs that start from an adapter")?;
    row.map(|row| row.id("id")).transpose()
}

pub async fn versions(store: &Sqlite) -> Result<Vec<String>> {
    let rows = sqlx::query("select distinct version from adapters order by version")
        .fetch_all(&store.readers)
        .await
        .context("listing the versions of adapters")?;
    rows.iter().map(|row| row.text("version")).collect()
}
