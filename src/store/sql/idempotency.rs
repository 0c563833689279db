//! Statements on requests with an idempotency key.
//!
//! A row begins with the first attempt of a request and a lease. A later attempt takes it over once the lease has ended. The row of a
//! request that was carried out holds its response.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, Row, RowLock, params};
use super::row_codec::DecodeRow;
use crate::store::interface::IdempotencyStore;
use crate::store::model::{FinishedRequest, KeyedRequest, RequestClaim, RequestStart, StoredResponse};
use async_trait::async_trait;
use espalier_core::error::{Error, Result};
use std::time::Duration;
use uuid::Uuid;

/// Rows deleted in one transaction.
const BATCH: u32 = 1000;

#[async_trait]
impl<D: Dialect> IdempotencyStore for SqlStore<D> {
    async fn begin_request(&self, request: &KeyedRequest, lease: Duration, lifetime: Duration) -> Result<RequestStart> {
        begin(self, request, lease, lifetime).await
    }

    async fn extend_request(&self, claim: &RequestClaim, lease: Duration) -> Result<bool> {
        extend(self, claim, lease).await
    }

    async fn release_request(&self, claim: &RequestClaim) -> Result<()> {
        release(self, claim).await
    }

    async fn finish_request(&self, claim: &RequestClaim, body_hash: &str, response: &StoredResponse) -> Result<bool> {
        finish(self, claim, body_hash, response).await
    }

    async fn delete_expired_requests(&self, lifetime: Duration) -> Result<u64> {
        delete_expired(self, lifetime).await
    }
}

/// Starts an attempt unless another one is in flight or the request was carried out within `lifetime`.
async fn begin<D: Dialect>(
    store: &SqlStore<D>,
    request: &KeyedRequest,
    lease: Duration,
    lifetime: Duration,
) -> Result<RequestStart> {
    let mut transaction = store.begin().await?;
    let KeyedRequest { owner, key_hash, .. } = request;
    transaction.acquire_advisory_lock(&["idempotency", owner, key_hash]).await.context("locking an idempotency key")?;
    let row = find(&mut transaction, request, lifetime).await?;
    let start = match row {
        None => insert(&mut transaction, request, lease).await?,
        Some(row) => match row.integer("is_in_flight")? == 1 {
            false if row.integer("is_expired")? == 1 => {
                delete(&mut transaction, request).await?;
                insert(&mut transaction, request, lease).await?
            }
            _ if row.text("request_hash")? != request.request_hash => RequestStart::OtherRequest,
            true => RequestStart::InFlight,
            false => match row.opt_integer("status")? {
                Some(status) => RequestStart::Finished(decode_finished::<D>(&row, status)?),
                None => take_over(&mut transaction, request, lease).await?,
            },
        },
    };
    transaction.commit().await?;
    Ok(start)
}

async fn find<D: Dialect>(
    transaction: &mut Transaction<D>,
    request: &KeyedRequest,
    lifetime: Duration,
) -> Result<Option<Row<D>>> {
    let sql = "select request_hash, body_hash, status, headers, body,
                   cast(case when lease_expires_at > (select now from db_now) then 1 else 0 end as bigint) as is_in_flight,
                   cast(case when created_at <= (select now from db_now) - $3 then 1 else 0 end as bigint) as is_expired
               from idempotency_keys where owner = $1 and key_hash = $2";
    let params = params![&request.owner, &request.key_hash, lifetime];
    transaction.fetch_locked(sql, RowLock::Update, params).await.context("reading an idempotency key")
}

async fn insert<D: Dialect>(
    transaction: &mut Transaction<D>,
    request: &KeyedRequest,
    lease: Duration,
) -> Result<RequestStart> {
    let sql = "insert into idempotency_keys (owner, key_hash, request_hash, object_id, instance_id, lease_expires_at, created_at)
               values ($1, $2, $3, $4, $5, (select now from db_now) + $6, (select now from db_now))";
    let params = params![
        &request.owner,
        &request.key_hash,
        &request.request_hash,
        request.object_id,
        request.instance_id,
        lease,
    ];
    transaction.execute(sql, params).await.context("adding an idempotency key")?;
    Ok(RequestStart::Started(RequestClaim {
        owner: request.owner.clone(),
        key_hash: request.key_hash.clone(),
        epoch: 1,
        object_id: request.object_id,
    }))
}

/// Starts the next attempt of a request whose last one has ended without a success. It creates the object with the same id.
async fn take_over<D: Dialect>(
    transaction: &mut Transaction<D>,
    request: &KeyedRequest,
    lease: Duration,
) -> Result<RequestStart> {
    let sql = "update idempotency_keys set epoch = epoch + 1, instance_id = $4,
                   lease_expires_at = (select now from db_now) + $3
               where owner = $1 and key_hash = $2
               returning epoch, object_id";
    let params = params![&request.owner, &request.key_hash, lease, request.instance_id];
    let row = transaction.fetch_one(sql, params).await.context("taking over an idempotency key")?;
    Ok(RequestStart::Started(RequestClaim {
        owner: request.owner.clone(),
        key_hash: request.key_hash.clone(),
        epoch: row.integer("epoch")?,
        object_id: row.uuid("object_id")?,
    }))
}

async fn delete<D: Dialect>(transaction: &mut Transaction<D>, request: &KeyedRequest) -> Result<()> {
    let sql = "delete from idempotency_keys where owner = $1 and key_hash = $2";
    let params = params![&request.owner, &request.key_hash];
    transaction.execute(sql, params).await.context("deleting an idempotency key")?;
    Ok(())
}

fn decode_finished<D: Dialect>(row: &Row<D>, status: i64) -> Result<FinishedRequest> {
    let headers = row.opt_json("headers")?.ok_or_else(|| Error::internal("a stored response has no headers"))?;
    Ok(FinishedRequest {
        body_hash: row.text("body_hash")?,
        response: StoredResponse {
            status: u16::try_from(status).context("reading a stored response")?,
            headers: serde_json::from_value(headers).context("reading a stored response")?,
            body: row.opt_text("body")?,
        },
    })
}

/// Extends the lease of an attempt. Returns whether it was still its own.
async fn extend<D: Dialect>(store: &SqlStore<D>, claim: &RequestClaim, lease: Duration) -> Result<bool> {
    let sql = "update idempotency_keys set lease_expires_at = (select now from db_now) + $4
               where owner = $1 and key_hash = $2 and epoch = $3 and status is null";
    let mut transaction = store.begin().await?;
    let params = params![&claim.owner, &claim.key_hash, claim.epoch, lease];
    let extended = transaction.execute(sql, params).await.context("extending the lease of an idempotency key")?;
    transaction.commit().await?;
    Ok(extended == 1)
}

/// Ends the attempts of an instance whose process has ended.
pub async fn release_instance<D: Dialect>(transaction: &mut Transaction<D>, instance: Uuid) -> Result<()> {
    let sql = "update idempotency_keys set lease_expires_at = null
               where instance_id = $1 and lease_expires_at is not null";
    transaction.execute(sql, params![instance]).await.context("releasing the idempotency keys of an instance")?;
    Ok(())
}

/// Ends an attempt without a response, so that the next one can start.
async fn release<D: Dialect>(store: &SqlStore<D>, claim: &RequestClaim) -> Result<()> {
    let sql = "update idempotency_keys set lease_expires_at = null
               where owner = $1 and key_hash = $2 and epoch = $3 and status is null";
    let mut transaction = store.begin().await?;
    let params = params![&claim.owner, &claim.key_hash, claim.epoch];
    transaction.execute(sql, params).await.context("releasing an idempotency key")?;
    transaction.commit().await
}

/// Stores the response of an attempt. Returns whether the request was still its own.
async fn finish<D: Dialect>(
    store: &SqlStore<D>,
    claim: &RequestClaim,
    body_hash: &str,
    response: &StoredResponse,
) -> Result<bool> {
    let sql =
        "update idempotency_keys set lease_expires_at = null, body_hash = $4, status = $5, headers = $6, body = $7
               where owner = $1 and key_hash = $2 and epoch = $3 and status is null";
    let headers = serde_json::to_value(&response.headers).context("storing a response")?;
    let mut transaction = store.begin().await?;
    let params = params![
        &claim.owner,
        &claim.key_hash,
        claim.epoch,
        body_hash,
        i64::from(response.status),
        &headers,
        &response.body,
    ];
    let stored = transaction.execute(sql, params).await.context("storing a response")?;
    transaction.commit().await?;
    Ok(stored == 1)
}

/// Deletes the rows that are older than `lifetime`, and returns their number.
async fn delete_expired<D: Dialect>(store: &SqlStore<D>, lifetime: Duration) -> Result<u64> {
    let sql = "delete from idempotency_keys where (owner, key_hash) in (
                   select owner, key_hash from idempotency_keys
                   where created_at <= (select now from db_now) - $1
                       and (lease_expires_at is null or lease_expires_at <= (select now from db_now))
                   limit $2
               )";
    let mut deleted = 0;
    loop {
        let mut transaction = store.begin().await?;
        let batch = transaction.execute(sql, params![lifetime, BATCH]).await.context("deleting idempotency keys")?;
        transaction.commit().await?;
        deleted += batch;
        if batch < u64::from(BATCH) {
            return Ok(deleted);
        }
    }
}
