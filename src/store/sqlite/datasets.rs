//! Statements about datasets.

use super::SqliteStore;
use super::connection::{Transaction, commit};
use super::pagination;
use crate::store::errors;
use crate::store::model::{Dataset, NewDataset, PageRequest};
use crate::store::row_decoding::{self, DecodeRow};
use crate::store::row_encoding::{DatasetJsonColumns, to_sql_integer};
use espalier_core::error::{Context, Result};
use uuid::Uuid;

/// The columns of a [`Dataset`], and where they come from.
macro_rules! select_datasets {
    ($rest:literal) => {
        concat!("select id, owner, file_name, hash, bytes, options, report, created_at from datasets ", $rest)
    };
}

pub async fn add(store: &SqliteStore, dataset: &NewDataset) -> Result<Dataset> {
    let json = DatasetJsonColumns::new(dataset)?;
    let mut transaction = store.begin().await?;
    let id = insert(&mut transaction, dataset, &json).await?;
    let added = find_by_id(&mut transaction, id).await?.ok_or_else(|| errors::dataset_not_found(id))?;
    commit(transaction).await?;
    Ok(added)
}

pub async fn delete(store: &SqliteStore, owner: &str, id: Uuid) -> Result<Option<String>> {
    let mut transaction = store.begin().await?;
    let dataset = find_by_id(&mut transaction, id).await?.filter(|dataset| dataset.owner == owner);
    let dataset = dataset.ok_or_else(|| errors::dataset_not_found(id))?;
    if let Some(job) = unfinished_job_using(&mut transaction, id).await? {
        return Err(errors::dataset_in_use(id, job));
    }
    delete_row(&mut transaction, id).await?;
    pagination::insert_tombstone(&mut transaction, owner, id, dataset.created_at).await?;
    let remaining = find_any_with_hash(&mut transaction, &dataset.hash).await?;
    commit(transaction).await?;
    Ok(remaining.is_none().then_some(dataset.hash))
}

/// Answers the id of the new row, or of the one that has the same content.
async fn insert(transaction: &mut Transaction, dataset: &NewDataset, json: &DatasetJsonColumns) -> Result<Uuid> {
    let row = sqlx::query(
        "insert into datasets (id, owner, file_name, hash, bytes, options, options_hash, report, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, (select now from db_now))
         on conflict (owner, hash, options_hash) do update set owner = excluded.owner
         returning id",
    )
    .bind(Uuid::now_v7())
    .bind(&dataset.owner)
    .bind(&dataset.file_name)
    .bind(&dataset.hash)
    .bind(to_sql_integer(dataset.bytes)?)
    .bind(&json.options)
    .bind(&json.options_hash)
    .bind(&json.report)
    .fetch_one(&mut **transaction)
    .await
    .context("adding a dataset")?;
    row.uuid("id")
}

pub async fn find_by_id(transaction: &mut Transaction, id: Uuid) -> Result<Option<Dataset>> {
    let row = sqlx::query(select_datasets!("where id = $1"))
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await
        .context("reading a dataset")?;
    row.as_ref().map(row_decoding::decode_dataset).transpose()
}

pub async fn read(store: &SqliteStore, owner: &str, id: Uuid) -> Result<Dataset> {
    let row = sqlx::query(select_datasets!("where id = $1 and owner = $2"))
        .bind(id)
        .bind(owner)
        .fetch_optional(&store.reader_pool)
        .await
        .context("reading a dataset")?;
    row_decoding::decode_dataset(&row.ok_or_else(|| errors::dataset_not_found(id))?)
}

pub async fn list(store: &SqliteStore, owner: &str, page: PageRequest) -> Result<Vec<Dataset>> {
    let cursor = pagination::resolve_cursor(store, owner, page).await?;
    let rows = sqlx::query(select_datasets!(
        "where owner = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4"
    ))
    .bind(owner)
    .bind(cursor.created_at.timestamp_millis())
    .bind(cursor.id)
    .bind(i64::from(page.limit))
    .fetch_all(&store.reader_pool)
    .await
    .context("listing datasets")?;
    rows.iter().map(row_decoding::decode_dataset).collect()
}

async fn unfinished_job_using(transaction: &mut Transaction, id: Uuid) -> Result<Option<Uuid>> {
    let row = sqlx::query(
        "select id from jobs
         where status in ('queued', 'paused', 'running') and (dataset_id = $1 or validation_dataset_id = $1)
         limit 1",
    )
    .bind(id)
    .fetch_optional(&mut **transaction)
    .await
    .context("looking for jobs that need a dataset")?;
    row.map(|row| row.uuid("id")).transpose()
}

async fn delete_row(transaction: &mut Transaction, id: Uuid) -> Result<()> {
    sqlx::query("delete from datasets where id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await
        .context("deleting a dataset")?;
    Ok(())
}

async fn find_any_with_hash(transaction: &mut Transaction, hash: &str) -> Result<Option<Uuid>> {
    let row = sqlx::query("select id from datasets where hash = $1 limit 1")
        .bind(hash)
        .fetch_optional(&mut **transaction)
        .await
        .context("looking for datasets with the same content")?;
    row.map(|row| row.uuid("id")).transpose()
}

pub async fn hashes(store: &SqliteStore) -> Result<Vec<String>> {
    let rows = sqlx::query("select distinct hash from datasets order by hash")
        .fetch_all(&store.reader_pool)
        .await
        .context("listing the hashes of datasets")?;
    rows.iter().map(|row| row.text("hash")).collect()
}
