//! Statements on webhooks of an owner.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, RowLock, params};
use super::pagination;
use super::row_codec::{self, DecodeRow};
use crate::store::errors;
use crate::store::model::{NewWebhook, PageRequest, Webhook};
use espalier_core::error::Result;
use uuid::Uuid;

/// Selects the columns of a [`Webhook`].
macro_rules! select_webhooks {
    ($rest:literal) => {
        concat!("select id, owner, url, events, disabled_at, consecutive_failures, created_at from webhooks ", $rest)
    };
}

pub async fn add<D: Dialect>(store: &SqlStore<D>, webhook: &NewWebhook, max_webhooks: u64) -> Result<Webhook> {
    let mut transaction = store.begin().await?;
    transaction.acquire_advisory_lock(&["webhooks", &webhook.owner]).await.context("locking an owner's webhooks")?;
    let sql = "select count(*) as webhooks from webhooks where owner = $1";
    let row = transaction.fetch_one(sql, params![&webhook.owner]).await.context("counting webhooks")?;
    if row_codec::decode_u64(&row, "webhooks")? >= max_webhooks {
        return Err(errors::too_many_webhooks(max_webhooks));
    }
    let events = serde_json::to_value(&webhook.events).context("adding a webhook")?;
    let sql = "insert into webhooks (id, owner, url, events, secret, created_at)
               values ($1, $2, $3, $4, $5, (select now from db_now))";
    let params = params![webhook.id, &webhook.owner, &webhook.url, &events, &webhook.secret];
    transaction.execute(sql, params).await.context("adding a webhook")?;
    let added = lock(&mut transaction, &webhook.owner, webhook.id).await?;
    transaction.commit().await?;
    Ok(added)
}

pub async fn read<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Webhook> {
    let sql = select_webhooks!("where id = $1 and owner = $2");
    let row = store.fetch_optional(sql, params![id, owner]).await.context("reading a webhook")?;
    decode(&row.ok_or_else(|| errors::webhook_not_found(id))?)
}

pub async fn list<D: Dialect>(store: &SqlStore<D>, owner: &str, page: PageRequest) -> Result<Vec<Webhook>> {
    let cursor = pagination::resolve_cursor(store, owner, page).await?;
    let sql =
        select_webhooks!("where owner = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4");
    let params = params![owner, cursor.created_at, cursor.id, page.limit];
    let rows = store.fetch_all(sql, params).await.context("listing webhooks")?;
    rows.iter().map(decode).collect()
}

/// Deletes a webhook with its deliveries.
pub async fn delete<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<()> {
    let mut transaction = store.begin().await?;
    let webhook = lock(&mut transaction, owner, id).await?;
    for sql in ["delete from webhook_deliveries where webhook_id = $1", "delete from webhooks where id = $1"] {
        transaction.execute(sql, params![id]).await.context("deleting a webhook")?;
    }
    pagination::insert_tombstone(&mut transaction, owner, id, webhook.created_at).await?;
    transaction.commit().await
}

/// Calls a disabled webhook again for what happens from now on.
pub async fn enable<D: Dialect>(store: &SqlStore<D>, owner: &str, id: Uuid) -> Result<Webhook> {
    let mut transaction = store.begin().await?;
    lock(&mut transaction, owner, id).await?;
    let sql = "update webhooks set disabled_at = null, consecutive_failures = 0 where id = $1";
    transaction.execute(sql, params![id]).await.context("enabling a webhook")?;
    let enabled = lock(&mut transaction, owner, id).await?;
    transaction.commit().await?;
    Ok(enabled)
}

/// Reads a webhook and locks it until the transaction ends.
pub async fn lock<D: Dialect>(transaction: &mut Transaction<D>, owner: &str, id: Uuid) -> Result<Webhook> {
    let sql = select_webhooks!("where id = $1 and owner = $2");
    let row = transaction.fetch_locked(sql, RowLock::Update, params![id, owner]).await.context("locking a webhook")?;
    decode(&row.ok_or_else(|| errors::webhook_not_found(id))?)
}

fn decode(row: &impl DecodeRow) -> Result<Webhook> {
    Ok(Webhook {
        id: row.uuid("id")?,
        owner: row.text("owner")?,
        url: row.text("url")?,
        events: row_codec::decode_json(row, "events")?,
        disabled_at: row.opt_timestamp("disabled_at")?,
        consecutive_failures: row_codec::decode_integer(row, "consecutive_failures")?,
        created_at: row.timestamp("created_at")?,
    })
}
