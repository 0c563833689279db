//! Statements and transactions on adapters and their names. A name points to the adapter that was added or activated last.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, Row, RowLock, params};
use super::row_codec::{self, DecodeRow};
use super::{adapter_names, deleted_owners, owners, pagination};
use crate::store::changes::Change;
use crate::store::errors;
use crate::store::model::{Adapter, NewAdapter, PageRequest, Reference, ResolvedAdapter};
use espalier_core::error::Result;
use serde_json::Value;
use uuid::Uuid;

/// Selects the columns of an [`Adapter`].
macro_rules! select_adapters {
    ($rest:literal) => {
        concat!(
            "select id, owner, name, job_id, description, created_at,
                 (select count(*) from adapter_names where adapter_id = adapters.id) as pointing_names
             from adapters ",
            $rest
        )
    };
}

pub(super) use select_adapters;

/// Condition of a row of `adapters` that the owner `$2` may read: it is its own, or shared with it.
macro_rules! visible_to_second_parameter {
    () => {
        "(owner = $2 or exists (
             select 1 from adapter_shares where adapter_id = adapters.id and grantee in ($2, '*')))"
    };
}

pub(super) use visible_to_second_parameter;

/// Selects the columns of a [`ResolvedAdapter`].
macro_rules! select_versions {
    ($rest:literal) => {
        concat!("select id, owner, name, version from adapters ", $rest)
    };
}

pub async fn add<D: Dialect>(store: &SqlStore<D>, adapter: &NewAdapter) -> Result<Adapter> {
    let mut transaction = store.begin().await?;
    if let Some(limit) = adapter.max_owner_bytes {
        let stored = owners::lock_storage(&mut transaction, &adapter.owner).await?;
        check_bytes(stored.adapter_bytes + adapter.description.bytes, limit)?;
    }
    let added = insert_with_name(&mut transaction, adapter).await?;
    deleted_owners::check_owner(&mut transaction, &adapter.owner).await?;
    transaction.record_change(Change::Adapters);
    transaction.commit().await?;
    Ok(added)
}

fn check_bytes(bytes: u64, limit: u64) -> Result<()> {
    if bytes <= limit {
        return Ok(());
    }
    let detail = format!(
        "your adapters would take {bytes} bytes, and the limit is {limit}: delete adapters that you do not need, or ask the \
         operator for more"
    );
    Err(errors::quota_exceeded("adapter_bytes_exceeded", detail))
}

pub async fn insert_with_name<D: Dialect>(transaction: &mut Transaction<D>, adapter: &NewAdapter) -> Result<Adapter> {
    let description = row_codec::encode_description(adapter)?;
    adapter_names::lock_name(transaction, &adapter.owner, adapter.name.as_deref()).await?;
    insert(transaction, adapter, &description).await?;
    adapter_names::point_to(transaction, adapter).await?;
    find_by_id(transaction, &adapter.owner, adapter.id).await
}

/// The row of this adapter if this job has already published it.
pub async fn find_published<D: Dialect>(
    transaction: &mut Transaction<D>,
    job: Uuid,
    adapter: &NewAdapter,
) -> Result<Option<Adapter>> {
    let sql = select_adapters!("where id = $1 and owner = $2 and job_id = $3");
    let params = params![adapter.id, &adapter.owner, job];
    let row = transaction.fetch_optional(sql, params).await.context("looking for a published adapter")?;
    row.as_ref().map(row_codec::decode_adapter).transpose()
}

pub async fn read<D: Dialect>(store: &SqlStore<D>, owner: &str, reference: &Reference) -> Result<Adapter> {
    let ResolvedAdapter { id, .. } = resolve(store, owner, reference).await?;
    let sql = concat!(select_adapters!("where id = $1 and "), visible_to_second_parameter!());
    let row = store.fetch_optional(sql, params![id, owner]).await.context("reading an adapter")?;
    row_codec::decode_adapter(&row.ok_or_else(|| errors::adapter_not_found(reference))?)
}

pub async fn find_by_version<D: Dialect>(store: &SqlStore<D>, owner: &str, version: &str) -> Result<Option<Adapter>> {
    let sql = select_adapters!("where version = $1 and owner = $2 order by created_at desc, id desc limit 1");
    let row =
        store.fetch_optional(sql, params![version, owner]).await.context("looking for an adapter by its version")?;
    row.as_ref().map(row_codec::decode_adapter).transpose()
}

pub async fn resolve<D: Dialect>(store: &SqlStore<D>, owner: &str, reference: &Reference) -> Result<ResolvedAdapter> {
    if reference.contains_nul() {
        return Err(errors::adapter_not_found(reference));
    }
    let row = match reference {
        Reference::Id(id) => {
            let sql = concat!(select_versions!("where id = $1 and "), visible_to_second_parameter!());
            store.fetch_optional(sql, params![*id, owner]).await.context("resolving an adapter")?
        }
        Reference::Name(_) | Reference::Version(..) => resolve_name(store, owner, owner, reference).await?,
        Reference::OfOwner(other, name) => resolve_name(store, other, owner, name).await?,
    };
    let row = row.ok_or_else(|| errors::adapter_not_found(reference))?;
    Ok(ResolvedAdapter {
        id: row.uuid("id")?,
        owner: row.text("owner")?,
        name: row.opt_text("name")?,
        version: row.text("version")?,
    })
}

/// Finds an adapter by a name of `owner` that `viewer` may read. An adapter that is not shared takes as long as one that does not exist:
/// the name of another owner is looked up first, and an id is always looked up after it.
async fn resolve_name<D: Dialect>(
    store: &SqlStore<D>,
    owner: &str,
    viewer: &str,
    reference: &Reference,
) -> Result<Option<Row<D>>> {
    let row = match reference {
        Reference::Name(name) if owner != viewer => {
            let sql = "select adapter_id from adapter_names where owner = $1 and name = $2";
            let row = store.fetch_optional(sql, params![owner, name]).await.context("resolving a name")?;
            let id = row.map(|row| row.uuid("adapter_id")).transpose()?.unwrap_or(Uuid::nil());
            let sql = concat!(select_versions!("where id = $1 and "), visible_to_second_parameter!());
            store.fetch_optional(sql, params![id, viewer]).await
        }
        Reference::Name(name) => {
            let sql = concat!(
                select_versions!(
                    "where id = (select adapter_id from adapter_names where owner = $1 and name = $3) and "
                ),
                visible_to_second_parameter!()
            );
            store.fetch_optional(sql, params![owner, viewer, name]).await
        }
        Reference::Version(name, version_prefix) => {
            if versions_with_prefix(store, owner, viewer, name, version_prefix).await?.len() > 1 {
                return Err(errors::ambiguous_version(name, version_prefix));
            }
            let sql = concat!(
                select_versions!(
                    "where adapters.owner = $1 and name = $3 and substr(version, 1, length($4)) = $4 and "
                ),
                visible_to_second_parameter!(),
                " order by created_at desc, id desc limit 1"
            );
            store.fetch_optional(sql, params![owner, viewer, name, version_prefix]).await
        }
        Reference::Id(_) | Reference::OfOwner(..) => return Ok(None),
    };
    row.context("resolving an adapter")
}

pub async fn delete<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Option<String>> {
    let mut transaction = store.begin().await?;
    let adapter = lock_for_deletion(&mut transaction, owner, id).await?;
    delete_locked(transaction, &adapter).await
}

/// Deletes an adapter that its name does not point to.
///
/// # Errors
/// `NotFound` if its name points to it; as [`delete`].
pub async fn delete_superseded<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Option<String>> {
    let mut transaction = store.begin().await?;
    let adapter = lock_for_deletion(&mut transaction, owner, id).await?;
    match adapter.is_current {
        true => Err(errors::adapter_not_found(&Reference::Id(id))),
        false => delete_locked(transaction, &adapter).await,
    }
}

/// Locks the adapter's name and the adapter.
async fn lock_for_deletion<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, id: Uuid) -> Result<Adapter> {
    let adapter = find_by_id(transaction, owner, id).await?;
    adapter_names::lock_name(transaction, owner, adapter.name.as_deref()).await?;
    lock_for_update(transaction, id).await?.ok_or_else(|| errors::adapter_not_found(&Reference::Id(id)))?;
    // Again, because the name may have been pointed elsewhere before it was locked.
    find_by_id(transaction, owner, id).await
}

async fn delete_locked<D: Dialect>(mut transaction: Transaction<D>, adapter: &Adapter) -> Result<Option<String>> {
    let (owner, id, version) = (&adapter.owner, adapter.id, &adapter.description.version);
    if let Some(job) = unfinished_job_starting_from(&mut transaction, owner, version).await? {
        return Err(errors::adapter_in_use(id, job));
    }
    adapter_names::repoint_to_previous(&mut transaction, adapter).await?;
    delete_row(&mut transaction, id).await?;
    pagination::insert_tombstone(&mut transaction, owner, id, adapter.created_at).await?;
    let is_unreferenced = is_unreferenced(&mut transaction, version).await?;
    transaction.record_change(Change::Adapters);
    transaction.commit().await?;
    Ok(is_unreferenced.then(|| version.clone()))
}

pub async fn activate<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Adapter> {
    let mut transaction = store.begin().await?;
    let adapter = find_by_id(&mut transaction, owner, id).await?;
    let Some(name) = &adapter.name else { return Err(errors::adapter_without_name(id)) };
    adapter_names::lock_name(&mut transaction, owner, Some(name)).await?;
    lock_for_update(&mut transaction, id).await?.ok_or_else(|| errors::adapter_not_found(&Reference::Id(id)))?;
    adapter_names::upsert(&mut transaction, owner, name, id).await?;
    let activated = find_by_id(&mut transaction, owner, id).await?;
    transaction.record_change(Change::Adapters);
    transaction.commit().await?;
    Ok(activated)
}

/// Creation times under one name strictly increase, even if the clock does not advance or steps back.
async fn insert<D: Dialect>(transaction: &mut Transaction<D>, adapter: &NewAdapter, description: &Value) -> Result<()> {
    let sql = "insert into adapters (id, owner, name, job_id, version, description, created_at)
               values ($1, $2, $3, $4, $5, $6, (
                   select max(created_at) from (
                       select now as created_at from db_now
                       union all select max(created_at) + $7 from adapters where owner = $2 and name = $3
                   ) as candidates
               ))";
    let params = params![
        adapter.id,
        &adapter.owner,
        &adapter.name,
        adapter.job_id,
        &adapter.description.version,
        description,
        D::CLOCK_RESOLUTION,
    ];
    match transaction.execute(sql, params).await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(errors::adapter_exists(adapter.id)),
        other => other.map(|_| ()).context("adding an adapter"),
    }
}

pub async fn find_by_id<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, id: Uuid) -> Result<Adapter> {
    let sql = select_adapters!("where id = $1 and owner = $2");
    let row = transaction.fetch_optional(sql, params![id, owner]).await.context("reading an adapter")?;
    row_codec::decode_adapter(&row.ok_or_else(|| errors::adapter_not_found(&Reference::Id(id)))?)
}

async fn lock_for_update<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<Option<Uuid>> {
    let sql = "select id from adapters where id = $1";
    let row = transaction.fetch_locked(sql, RowLock::Update, params![id]).await.context("locking an adapter")?;
    row_codec::decode_id(row.as_ref())
}

/// Returns at most two versions: two are enough to know that the prefix is ambiguous.
async fn versions_with_prefix<D: Dialect>(
    store: &SqlStore<D>,
    owner: &str,
    viewer: &str,
    name: &str,
    version_prefix: &str,
) -> Result<Vec<Row<D>>> {
    let sql = concat!(
        "select distinct version from adapters
         where adapters.owner = $1 and name = $3 and substr(version, 1, length($4)) = $4 and ",
        visible_to_second_parameter!(),
        " limit 2"
    );
    store.fetch_all(sql, params![owner, viewer, name, version_prefix]).await.context("looking for a version")
}

pub async fn list<D: Dialect>(store: &SqlStore<D>, owner: &str, page: PageRequest) -> Result<Vec<Adapter>> {
    let cursor = pagination::resolve_cursor(store, owner, page).await?;
    let sql =
        select_adapters!("where owner = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4");
    let params = params![owner, cursor.created_at, cursor.id, page.limit];
    let rows = store.fetch_all(sql, params).await.context("listing adapters")?;
    rows.iter().map(row_codec::decode_adapter).collect()
}

pub async fn delete_row<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<()> {
    let sql = "delete from adapters where id = $1";
    transaction.execute(sql, params![id]).await.context("deleting an adapter")?;
    Ok(())
}

/// Whether no adapter has this version.
pub async fn is_unreferenced<D: Dialect>(transaction: &mut Transaction<D>, version: &str) -> Result<bool> {
    let sql = "select id from adapters where version = $1 limit 1";
    let row =
        transaction.fetch_optional(sql, params![version]).await.context("looking for adapters of the same version")?;
    Ok(row.is_none())
}

/// Prevents the deletion of one adapter of this version until the transaction ends, and returns its id.
pub async fn lock_version_for_share<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    version: &str,
) -> Result<Option<Uuid>> {
    let sql = "select id from adapters where owner = $1 and version = $2 limit 1";
    let row = transaction
        .fetch_locked(sql, RowLock::Share, params![owner, version])
        .await
        .context("looking for the adapter that a job starts from")?;
    row_codec::decode_id(row.as_ref())
}

async fn unfinished_job_starting_from<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    version: &str,
) -> Result<Option<Uuid>> {
    let sql = "select id from jobs
               where owner = $1 and status in ('queued', 'paused', 'running')
                   and spec -> 'from_adapter' ->> 'version' = $2
               limit 1";
    let row = transaction
        .fetch_optional(sql, params![owner, version])
        .await
        .context("looking for unfinished jobs that start from an adapter")?;
    row_codec::decode_id(row.as_ref())
}

pub async fn versions<D: Dialect>(store: &SqlStore<D>) -> Result<Vec<String>> {
    let sql = "select distinct version from adapters order by version";
    let rows = store.fetch_all(sql, params![]).await.context("listing the versions of adapters")?;
    rows.iter().map(|row| row.text("version")).collect()
}
