//! Statements and transactions on datasets.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, RowLock, params};
use super::row_codec::{self, DatasetJsonColumns, DecodeRow, to_sql_integer};
use super::{deleted_owners, owners, pagination};
use crate::store::errors;
use crate::store::model::{Dataset, DatasetLimits, NewDataset, OwnerStorage, PageRequest};
use espalier_core::error::Result;
use std::time::Duration;
use uuid::Uuid;

/// Selects the columns of a [`Dataset`].
macro_rules! select_datasets {
    ($rest:literal) => {
        concat!("select id, owner, file_name, hash, bytes, options, report, created_at from datasets ", $rest)
    };
}

pub async fn add<D: Dialect>(store: &SqlStore<D>, dataset: &NewDataset) -> Result<Dataset> {
    let json = DatasetJsonColumns::new(dataset)?;
    let mut transaction = store.begin().await?;
    let before = match dataset.limits == DatasetLimits::default() {
        true => None,
        false => Some(owners::lock_storage(&mut transaction, &dataset.owner).await?),
    };
    let id = insert(&mut transaction, dataset, &json).await?;
    if let Some(before) = before {
        check_limits(&mut transaction, dataset, before).await?;
    }
    deleted_owners::check_owner(&mut transaction, &dataset.owner).await?;
    let added = find_by_id(&mut transaction, id).await?.ok_or_else(|| errors::dataset_not_found(id))?;
    transaction.commit().await?;
    Ok(added)
}

pub async fn delete<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Option<String>> {
    let mut transaction = store.begin().await?;
    let dataset = lock_for_update(&mut transaction, owner, id).await?.ok_or_else(|| errors::dataset_not_found(id))?;
    delete_locked(transaction, &dataset).await
}

/// Deletes a dataset that has not been used for `age`.
///
/// # Errors
/// `NotFound` if it has been used since; as [`delete`].
pub async fn delete_unused<D: Dialect>(
    store: &SqlStore<D>,
    owner: &str,
    id: Uuid,
    age: Duration,
) -> Result<Option<String>> {
    let mut transaction = store.begin().await?;
    let sql = select_datasets!(
        "where id = $1 and owner = $2 and coalesce(last_used_at, created_at) < (select now from db_now) - $3"
    );
    let row = transaction.fetch_locked(sql, RowLock::Update, params![id, owner, age]).await;
    let row = row.context("locking an unused dataset")?.ok_or_else(|| errors::dataset_not_found(id))?;
    delete_locked(transaction, &row_codec::decode_dataset(&row)?).await
}

async fn delete_locked<D: Dialect>(mut transaction: Transaction<D>, dataset: &Dataset) -> Result<Option<String>> {
    if let Some(job) = unfinished_job_using(&mut transaction, dataset.id).await? {
        return Err(errors::dataset_in_use(dataset.id, job));
    }
    delete_row(&mut transaction, dataset.id).await?;
    pagination::insert_tombstone(&mut transaction, &dataset.owner, dataset.id, dataset.created_at).await?;
    let is_unreferenced = is_unreferenced(&mut transaction, &dataset.hash).await?;
    transaction.commit().await?;
    Ok(is_unreferenced.then(|| dataset.hash.clone()))
}

/// Refuses a dataset that exceeds a limit of its owner. One that is stored already, and adds nothing, is accepted.
async fn check_limits<D: Dialect>(
    transaction: &mut Transaction<D>,
    dataset: &NewDataset,
    before: OwnerStorage,
) -> Result<()> {
    let after = owners::storage_in(transaction, &dataset.owner).await?;
    for (code, what, limit, before, after) in [
        ("dataset_bytes_exceeded", "bytes", dataset.limits.bytes, before.dataset_bytes, after.dataset_bytes),
        ("dataset_rows_exceeded", "rows", dataset.limits.rows, before.dataset_rows, after.dataset_rows),
    ] {
        if let Some(limit) = limit.filter(|limit| after > before && after > *limit) {
            let detail = format!(
                "your datasets would take {after} {what}, and the limit is {limit}: delete datasets that you do not need, or ask \
                 the operator for more"
            );
            return Err(errors::quota_exceeded(code, detail));
        }
    }
    Ok(())
}

/// Returns the id of the new row, or of the existing row with the same content.
async fn insert<D: Dialect>(
    transaction: &mut Transaction<D>,
    dataset: &NewDataset,
    json: &DatasetJsonColumns,
) -> Result<Uuid> {
    let sql = "insert into datasets (id, owner, file_name, hash, bytes, options, options_hash, report, created_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8, (select now from db_now))
               on conflict (owner, hash, options_hash) do update set last_used_at = (select now from db_now)
               returning id";
    let params = params![
        Uuid::now_v7(),
        &dataset.owner,
        &dataset.file_name,
        &dataset.hash,
        to_sql_integer(dataset.bytes)?,
        &json.options,
        &json.options_hash,
        &json.report,
    ];
    transaction.fetch_one(sql, params).await.context("adding a dataset")?.uuid("id")
}

pub async fn find_by_id<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<Option<Dataset>> {
    let sql = select_datasets!("where id = $1");
    let row = transaction.fetch_optional(sql, params![id]).await.context("reading a dataset")?;
    row.as_ref().map(row_codec::decode_dataset).transpose()
}

/// Records the use of a dataset, and prevents its deletion until the transaction ends.
pub async fn mark_used<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, id: Uuid) -> Result<Option<Uuid>> {
    let sql = "update datasets set last_used_at = (select now from db_now) where id = $1 and owner = $2 returning id";
    let row = transaction.fetch_optional(sql, params![id, owner]).await.context("recording the use of a dataset")?;
    row_codec::decode_id(row.as_ref())
}

async fn lock_for_update<D: Dialect>(
    transaction: &mut Transaction<D>,
    owner: &str,
    id: Uuid,
) -> Result<Option<Dataset>> {
    let sql = select_datasets!("where id = $1 and owner = $2");
    let row = transaction.fetch_locked(sql, RowLock::Update, params![id, owner]).await.context("locking a dataset")?;
    row.as_ref().map(row_codec::decode_dataset).transpose()
}

pub async fn read<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Dataset> {
    let sql = select_datasets!("where id = $1 and owner = $2");
    let row = store.fetch_optional(sql, params![id, owner]).await.context("reading a dataset")?;
    row_codec::decode_dataset(&row.ok_or_else(|| errors::dataset_not_found(id))?)
}

pub async fn list<D: Dialect>(store: &SqlStore<D>, owner: &str, page: PageRequest) -> Result<Vec<Dataset>> {
    let cursor = pagination::resolve_cursor(store, owner, page).await?;
    let sql =
        select_datasets!("where owner = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4");
    let params = params![owner, cursor.created_at, cursor.id, page.limit];
    let rows = store.fetch_all(sql, params).await.context("listing datasets")?;
    rows.iter().map(row_codec::decode_dataset).collect()
}

async fn unfinished_job_using<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<Option<Uuid>> {
    let sql = "select id from jobs
               where status in ('queued', 'paused', 'running') and (dataset_id = $1 or validation_dataset_id = $1)
               limit 1";
    let row =
        transaction.fetch_optional(sql, params![id]).await.context("looking for unfinished jobs that use a dataset")?;
    row_codec::decode_id(row.as_ref())
}

pub async fn delete_row<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<()> {
    let sql = "delete from datasets where id = $1";
    transaction.execute(sql, params![id]).await.context("deleting a dataset")?;
    Ok(())
}

/// Whether no dataset has this content.
pub async fn is_unreferenced<D: Dialect>(transaction: &mut Transaction<D>, hash: &str) -> Result<bool> {
    let sql = "select id from datasets where hash = $1 limit 1";
    let row =
        transaction.fetch_optional(sql, params![hash]).await.context("looking for datasets with the same content")?;
    Ok(row.is_none())
}

pub async fn hashes<D: Dialect>(store: &SqlStore<D>) -> Result<Vec<String>> {
    let sql = "select distinct hash from datasets order by hash";
    let rows = store.fetch_all(sql, params![]).await.context("listing the hashes of datasets")?;
    rows.iter().map(|row| row.text("hash")).collect()
}
