//! Statements on reservations and deletions of blobs in object storage.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, Param, params};
use crate::store::interface::BlobReservations;
use crate::store::model::BlobKind;
use async_trait::async_trait;
use espalier_core::error::Result;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
impl<D: Dialect> BlobReservations for SqlStore<D> {
    async fn reserve_blob(&self, kind: BlobKind, name: &str, duration: Duration) -> Result<Option<Uuid>> {
        let mut transaction = self.begin().await?;
        lock(&mut transaction, kind, name).await?;
        if is_being_deleted(&mut transaction, kind, name).await? {
            return Ok(None);
        }
        let id = Uuid::now_v7();
        let sql = "insert into blob_reservations (id, kind, name, reserved_until)
                   values ($1, $2, $3, (select now from db_now) + $4)";
        transaction.execute(sql, params![id, kind.as_str(), name, duration]).await.context("reserving a blob")?;
        transaction.commit().await?;
        Ok(Some(id))
    }

    async fn reserve_all_blobs(&self, duration: Duration) -> Result<Uuid> {
        let mut transaction = self.begin().await?;
        let id = Uuid::now_v7();
        let sql = "insert into blob_reservations (id, kind, name, reserved_until)
                   values ($1, 'all', '', (select now from db_now) + $2)";
        transaction.execute(sql, params![id, duration]).await.context("reserving all blobs")?;
        transaction.commit().await?;
        Ok(id)
    }

    async fn release_blob(&self, reservation: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        let sql = "delete from blob_reservations where id = $1";
        transaction.execute(sql, params![reservation]).await.context("releasing a blob")?;
        transaction.commit().await
    }

    async fn begin_blob_deletion(&self, kind: BlobKind, name: &str, timeout: Duration) -> Result<bool> {
        let mut transaction = self.begin().await?;
        lock(&mut transaction, kind, name).await?;
        if is_being_deleted(&mut transaction, kind, name).await?
            || is_reserved(&mut transaction, kind, name).await?
            || is_referenced(&mut transaction, kind, name).await?
        {
            return Ok(false);
        }
        let sql =
            "insert into blob_deletions (kind, name, deleting_until) values ($1, $2, (select now from db_now) + $3)
                   on conflict (kind, name) do update set deleting_until = excluded.deleting_until";
        let params = params![kind.as_str(), name, timeout];
        transaction.execute(sql, params).await.context("beginning to delete a blob")?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn finish_blob_deletion(&self, kind: BlobKind, name: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        let sql = "delete from blob_deletions where kind = $1 and name = $2";
        transaction.execute(sql, params![kind.as_str(), name]).await.context("ending the deletion of a blob")?;
        transaction.commit().await
    }

    async fn delete_expired_reservations(&self) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let mut deleted = 0;
        for sql in [
            "delete from blob_reservations where reserved_until <= (select now from db_now)",
            "delete from blob_deletions where deleting_until <= (select now from db_now)",
        ] {
            deleted += transaction.execute(sql, params![]).await.context("deleting expired reservations of blobs")?;
        }
        transaction.commit().await?;
        Ok(deleted)
    }
}

/// Lets one transaction at a time decide about a blob.
async fn lock<D: Dialect>(transaction: &mut Transaction<D>, kind: BlobKind, name: &str) -> Result<()> {
    let locked = transaction.acquire_advisory_lock(&["blob", kind.as_str(), name]).await;
    locked.context("waiting for another process that reserves or deletes the same blob")
}

async fn is_being_deleted<D: Dialect>(transaction: &mut Transaction<D>, kind: BlobKind, name: &str) -> Result<bool> {
    let sql =
        "select 1 from blob_deletions where kind = $1 and name = $2 and deleting_until > (select now from db_now)";
    exists(transaction, sql, params![kind.as_str(), name]).await
}

async fn is_reserved<D: Dialect>(transaction: &mut Transaction<D>, kind: BlobKind, name: &str) -> Result<bool> {
    let sql = "select 1 from blob_reservations
               where (kind = $1 and name = $2 or kind = 'all') and reserved_until > (select now from db_now) limit 1";
    exists(transaction, sql, params![kind.as_str(), name]).await
}

async fn is_referenced<D: Dialect>(transaction: &mut Transaction<D>, kind: BlobKind, name: &str) -> Result<bool> {
    let sql = match kind {
        BlobKind::Dataset => "select 1 from datasets where hash = $1 limit 1",
        BlobKind::Adapter => "select 1 from adapters where version = $1 limit 1",
    };
    exists(transaction, sql, params![name]).await
}

async fn exists<D: Dialect>(transaction: &mut Transaction<D>, sql: &'static str, params: &[Param<'_>]) -> Result<bool> {
    let row = transaction.fetch_optional(sql, params).await;
    Ok(row.context("checking whether a blob may be deleted")?.is_some())
}
