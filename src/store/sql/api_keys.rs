//! Statements and transactions on API keys, and the snapshot that servers authenticate with.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::pagination::Cursor;
use super::row_codec::{self, DecodeRow};
use super::{access_version, owners};
use crate::store::errors;
use crate::store::model::{AccessSnapshot, ApiKey, NewApiKey, PageRequest};
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use uuid::Uuid;

/// Selects the columns of an [`ApiKey`].
macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "select id, owner, name, prefix, digest, scopes, adapters, limits, created_by, created_at, expires_at,
                 revoked_at, last_used_at
             from api_keys ",
            $rest
        )
    };
}

pub async fn add<D: Dialect>(store: &SqlStore<D>, key: &NewApiKey) -> Result<ApiKey> {
    let mut transaction = store.begin().await?;
    insert(&mut transaction, key).await?;
    access_version::raise(&mut transaction).await?;
    let added = find(&mut transaction, key.id).await?;
    transaction.commit().await?;
    Ok(added)
}

pub async fn rotate<D: Dialect>(
    store: &SqlStore<D>,
    id: Uuid,
    new: &NewApiKey,
    old_expires_at: DateTime<Utc>,
) -> Result<ApiKey> {
    let mut transaction = store.begin().await?;
    find(&mut transaction, id).await?;
    let sql = "update api_keys set expires_at = $2
               where id = $1 and revoked_at is null and coalesce(expires_at > (select now from db_now), true)
                   and coalesce(expires_at > $2, true)";
    let shortened = transaction.execute(sql, params![id, old_expires_at]).await.context("ending a key")?;
    if shortened == 0 && !is_valid(&mut transaction, id).await? {
        return Err(errors::key_revoked(id));
    }
    insert(&mut transaction, new).await?;
    access_version::raise(&mut transaction).await?;
    let added = find(&mut transaction, new.id).await?;
    transaction.commit().await?;
    Ok(added)
}

pub async fn revoke<D: Dialect>(store: &SqlStore<D>, id: Uuid) -> Result<ApiKey> {
    let mut transaction = store.begin().await?;
    let sql = "update api_keys set revoked_at = (select now from db_now) where id = $1 and revoked_at is null";
    if transaction.execute(sql, params![id]).await.context("revoking a key")? > 0 {
        access_version::raise(&mut transaction).await?;
    }
    let key = find(&mut transaction, id).await?;
    transaction.commit().await?;
    Ok(key)
}

async fn insert<D: Dialect>(transaction: &mut Transaction<D>, key: &NewApiKey) -> Result<()> {
    let sql = "insert into api_keys (id, owner, name, prefix, digest, scopes, adapters, limits, created_by, created_at,
                   expires_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, (select now from db_now), $10)";
    let scopes = row_codec::to_storable_json("the key's scopes", &key.scopes)?;
    let adapters = key.adapters.as_ref().map(|adapters| row_codec::to_storable_json("the key's adapters", adapters));
    let adapters = adapters.transpose()?;
    let limits = row_codec::to_storable_json("the key's limits", &key.limits)?;
    row_codec::reject_nul("the key's name", Some(&key.name))?;
    let params = params![
        key.id,
        &key.owner,
        &key.name,
        &key.prefix,
        &key.digest,
        &scopes,
        &adapters,
        &limits,
        &key.created_by,
        key.expires_at,
    ];
    transaction.execute(sql, params).await.context("adding a key")?;
    Ok(())
}

async fn find<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<ApiKey> {
    let row = transaction.fetch_optional(select_keys!("where id = $1"), params![id]).await.context("reading a key")?;
    decode(&row.ok_or_else(|| errors::key_not_found(id))?)
}

async fn is_valid<D: Dialect>(transaction: &mut Transaction<D>, id: Uuid) -> Result<bool> {
    let sql = "select id from api_keys where id = $1 and revoked_at is null
                   and coalesce(expires_at > (select now from db_now), true)";
    Ok(transaction.fetch_optional(sql, params![id]).await.context("reading a key")?.is_some())
}

pub async fn read<D: Dialect>(store: &SqlStore<D>, id: Uuid) -> Result<ApiKey> {
    let row = store.fetch_optional(select_keys!("where id = $1"), params![id]).await.context("reading a key")?;
    decode(&row.ok_or_else(|| errors::key_not_found(id))?)
}

pub async fn list<D: Dialect>(store: &SqlStore<D>, page: PageRequest) -> Result<Vec<ApiKey>> {
    let cursor = match page.after {
        None => Cursor::START,
        Some(id) => {
            let sql = "select created_at from api_keys where id = $1";
            let row =
                store.fetch_optional(sql, params![id]).await.context("finding the key that a page begins after")?;
            Cursor { created_at: row.ok_or_else(|| errors::unknown_cursor(id))?.timestamp("created_at")?, id }
        }
    };
    let sql = select_keys!("where (created_at, id) < ($1, $2) order by created_at desc, id desc limit $3");
    let rows = store.fetch_all(sql, params![cursor.created_at, cursor.id, page.limit]).await;
    rows.context("listing keys")?.iter().map(decode).collect()
}

pub async fn record_use<D: Dialect>(store: &SqlStore<D>, uses: &[(Uuid, DateTime<Utc>)]) -> Result<()> {
    let mut transaction = store.begin().await?;
    for (id, used_at) in uses {
        let sql = "update api_keys set last_used_at = $2 where id = $1 and coalesce(last_used_at < $2, true)";
        transaction.execute(sql, params![*id, *used_at]).await.context("recording the use of a key")?;
    }
    transaction.commit().await
}

/// Reads the version before the rows: a change in between is noticed at the next comparison.
pub async fn snapshot<D: Dialect>(store: &SqlStore<D>) -> Result<AccessSnapshot> {
    let version = access_version::read(store).await?;
    let sql = select_keys!("where revoked_at is null and coalesce(expires_at > (select now from db_now), true)");
    let rows = store.fetch_all(sql, params![]).await.context("reading the keys")?;
    let keys = rows.iter().map(|row| Ok((row.text("digest")?, decode(row)?))).collect::<Result<_>>()?;
    let any = store.fetch_optional("select id from api_keys limit 1", params![]).await.context("reading the keys")?;
    Ok(AccessSnapshot { version, has_keys: any.is_some(), keys, owners: owners::with_limits(store).await? })
}

fn decode(row: &impl DecodeRow) -> Result<ApiKey> {
    Ok(ApiKey {
        id: row.uuid("id")?,
        owner: row.text("owner")?,
        name: row.text("name")?,
        prefix: row.text("prefix")?,
        scopes: row_codec::decode_json(row, "scopes")?,
        adapters: row_codec::decode_opt_json(row, "adapters")?,
        limits: row_codec::decode_json(row, "limits")?,
        created_by: row.text("created_by")?,
        created_at: row.timestamp("created_at")?,
        expires_at: row.opt_timestamp("expires_at")?,
        revoked_at: row.opt_timestamp("revoked_at")?,
        last_used_at: row.opt_timestamp("last_used_at")?,
    })
}
