//! Deliveries of webhooks: rows that the transaction of an event adds, and the attempts to send them.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, RowLock, params};
use super::row_codec::{self, DecodeRow};
use super::webhooks;
use crate::store::errors;
use crate::store::model::{
    ClaimedDelivery, DeliveryOutcome, DeliveryStatus, Job, PageRequest, WebhookDelivery, WebhookEvent,
};
use espalier_core::error::Result;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// Rows deleted in one transaction.
const BATCH: u32 = 1000;

/// Selects the columns of a [`WebhookDelivery`].
macro_rules! select_deliveries {
    ($rest:literal) => {
        concat!(
            "select id, event, status, attempts, response_status, error, next_attempt_at, created_at, finished_at, payload
             from webhook_deliveries ",
            $rest
        )
    };
}

/// Whether the owner of a job has a webhook that is called.
pub async fn has_webhooks<D: Dialect>(transaction: &mut Transaction<D>, job: Uuid) -> Result<bool> {
    let sql = "select webhooks.id from webhooks join jobs on jobs.owner = webhooks.owner
               where jobs.id = $1 and disabled_at is null limit 1";
    let row = transaction.fetch_optional(sql, params![job]).await.context("looking for webhooks")?;
    Ok(row.is_some())
}

/// Adds a delivery for each webhook of the owner that listens to the end of a job.
pub async fn add_for_job<D: Dialect>(transaction: &mut Transaction<D>, job: &Job, event: WebhookEvent) -> Result<()> {
    let data = describe_job(transaction, job).await?;
    let sql = "select id, events from webhooks where owner = $1 and disabled_at is null";
    let rows = transaction.fetch_all(sql, params![&job.owner]).await.context("finding the webhooks of an event")?;
    for row in rows {
        let events: Vec<WebhookEvent> = row_codec::decode_json(&row, "events")?;
        if events.contains(&event) {
            insert(transaction, row.uuid("id")?, event, &data).await?;
        }
    }
    Ok(())
}

/// What a webhook receives of a job: no texts of the dataset, and of the metrics the numbers only.
async fn describe_job<D: Dialect>(transaction: &mut Transaction<D>, job: &Job) -> Result<Value> {
    let adapter = match job.adapter_id {
        None => None,
        Some(id) => {
            let sql = "select name, version from adapters where id = $1";
            let row = transaction.fetch_one(sql, params![id]).await.context("reading the adapter of a job")?;
            Some(json!({"id": id, "name": row.opt_text("name")?, "version": row.text("version")?}))
        }
    };
    let numbers = job.metrics.as_ref().and_then(Value::as_object).map(|metrics| {
        let numbers = metrics.iter().filter(|(_, value)| value.is_number());
        numbers.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>()
    });
    Ok(json!({
        "job_id": job.id,
        "name": job.name,
        "status": job.status,
        "adapter": adapter,
        "metrics": numbers,
        "error": job.error,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }))
}

/// Adds a delivery whose first attempt is due, and returns its id.
async fn insert<D: Dialect>(
    transaction: &mut Transaction<D>,
    webhook: Uuid,
    event: WebhookEvent,
    data: &Value,
) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let now = transaction.fetch_one("select now from db_now", params![]).await.context("reading the clock")?;
    let now = now.timestamp("now")?;
    let payload = json!({"type": event.as_str(), "timestamp": now, "data": data});
    let sql = "insert into webhook_deliveries (id, webhook_id, event, payload, next_attempt_at, created_at)
               values ($1, $2, $3, $4, $5, $5)";
    let payload = row_codec::to_storable_json("the payload of a webhook", &payload)?;
    let params = params![id, webhook, event.as_str(), &payload, now];
    transaction.execute(sql, params).await.context("adding a delivery")?;
    Ok(id)
}

/// Adds a delivery of the event `webhook.test`.
pub async fn add_test<D: Dialect>(store: &SqlStore<D>, owner: &str, webhook: Uuid) -> Result<WebhookDelivery> {
    let mut transaction = store.begin().await?;
    let webhook = webhooks::lock(&mut transaction, owner, webhook).await?;
    if webhook.disabled_at.is_some() {
        return Err(errors::webhook_disabled(webhook.id));
    }
    let id = insert(&mut transaction, webhook.id, WebhookEvent::Test, &json!({"webhook_id": webhook.id})).await?;
    let added = find(&mut transaction, webhook.id, id).await?;
    transaction.commit().await?;
    Ok(added)
}

/// Lists the deliveries of a webhook, newest first.
pub async fn list<D: Dialect>(
    store: &SqlStore<D>,
    owner: &str,
    webhook: Uuid,
    page: PageRequest,
) -> Result<Vec<WebhookDelivery>> {
    webhooks::read(store, owner, webhook).await?;
    let rows = match page.after {
        None => {
            let sql = select_deliveries!("where webhook_id = $1 order by created_at desc, id desc limit $2");
            store.fetch_all(sql, params![webhook, page.limit]).await
        }
        Some(after) => {
            let sql = "select id from webhook_deliveries where id = $1 and webhook_id = $2";
            let cursor = store.fetch_optional(sql, params![after, webhook]).await.context("finding a delivery")?;
            cursor.ok_or_else(|| errors::unknown_cursor(after))?;
            let sql = select_deliveries!(
                "where webhook_id = $1
                     and (created_at, id) < (select created_at, id from webhook_deliveries where id = $2)
                 order by created_at desc, id desc limit $3"
            );
            store.fetch_all(sql, params![webhook, after, page.limit]).await
        }
    };
    rows.context("listing deliveries")?.iter().map(decode).collect()
}

/// Queues a finished delivery again, with a new schedule of attempts.
pub async fn resend<D: Dialect>(
    store: &SqlStore<D>,
    owner: &str,
    webhook: Uuid,
    delivery: Uuid,
) -> Result<WebhookDelivery> {
    let mut transaction = store.begin().await?;
    let webhook = webhooks::lock(&mut transaction, owner, webhook).await?;
    let found = find(&mut transaction, webhook.id, delivery).await?;
    match (webhook.disabled_at, found.status) {
        (Some(_), _) => return Err(errors::webhook_disabled(webhook.id)),
        (None, DeliveryStatus::Pending) => return Err(errors::delivery_pending(delivery)),
        (None, DeliveryStatus::Delivered | DeliveryStatus::Failed) => {}
    }
    let sql = "update webhook_deliveries
               set status = 'pending', attempts = 0, next_attempt_at = (select now from db_now), finished_at = null
               where id = $1";
    transaction.execute(sql, params![delivery]).await.context("queueing a delivery again")?;
    let queued = find(&mut transaction, webhook.id, delivery).await?;
    transaction.commit().await?;
    Ok(queued)
}

async fn find<D: Dialect>(transaction: &mut Transaction<D>, webhook: Uuid, id: Uuid) -> Result<WebhookDelivery> {
    let sql = select_deliveries!("where id = $1 and webhook_id = $2");
    let row = transaction.fetch_optional(sql, params![id, webhook]).await.context("reading a delivery")?;
    decode(&row.ok_or_else(|| errors::delivery_not_found(id))?)
}

/// Condition of a delivery that is due. Its first line is the condition of the index `webhook_deliveries_due`.
macro_rules! due {
    () => {
        "status = 'pending'
         and next_attempt_at <= (select now from db_now)
         and (lease_expires_at is null or lease_expires_at <= (select now from db_now))"
    };
}

/// Claims the delivery that has been due longest. `None` if none is due.
pub async fn claim<D: Dialect>(store: &SqlStore<D>, lease: Duration) -> Result<Option<ClaimedDelivery>> {
    // An idle deliverer only reads, because a write would lock the other writers of an SQLite file out.
    let sql = concat!("select id from webhook_deliveries where ", due!(), " limit 1");
    if store.fetch_optional(sql, params![]).await.context("looking for a delivery")?.is_none() {
        return Ok(None);
    }
    let mut transaction = store.begin().await?;
    let sql = concat!("select id from webhook_deliveries where ", due!(), " order by next_attempt_at, id limit 1");
    let row =
        transaction.fetch_locked(sql, RowLock::UpdateSkipLocked, params![]).await.context("looking for a delivery")?;
    let Some(row) = row else { return Ok(None) };
    let id = row.uuid("id")?;
    let sql = "update webhook_deliveries
               set attempts = attempts + 1, lease_expires_at = (select now from db_now) + $2
               where id = $1";
    transaction.execute(sql, params![id, lease]).await.context("claiming a delivery")?;
    let sql = "select webhook_id, url, secret, payload, attempts, (select now from db_now) as now
               from webhook_deliveries join webhooks on webhooks.id = webhook_id
               where webhook_deliveries.id = $1";
    let row = transaction.fetch_optional(sql, params![id]).await.context("reading a claimed delivery")?;
    let Some(row) = row else {
        // Its webhook was deleted when the delivery was added.
        let sql = "delete from webhook_deliveries where id = $1";
        transaction.execute(sql, params![id]).await.context("deleting a delivery")?;
        transaction.commit().await?;
        return Ok(None);
    };
    let claimed = ClaimedDelivery {
        id,
        webhook_id: row.uuid("webhook_id")?,
        url: row.text("url")?,
        secret: row.text("secret")?,
        payload: row_codec::decode_json(&row, "payload")?,
        attempt: row_codec::decode_integer(&row, "attempts")?,
        now: row.timestamp("now")?,
    };
    transaction.commit().await?;
    Ok(Some(claimed))
}

/// Records the outcome of an attempt, unless another deliverer has started the next one. After `max_failures` failed attempts in a row
/// the webhook is disabled, and its pending deliveries have failed.
pub async fn record<D: Dialect>(
    store: &SqlStore<D>,
    claimed: &ClaimedDelivery,
    outcome: &DeliveryOutcome,
    max_failures: u32,
) -> Result<()> {
    let mut transaction = store.begin().await?;
    // The webhook first, as in every other transaction.
    let sql = "select id from webhooks where id = $1";
    let webhook = transaction.fetch_locked(sql, RowLock::Update, params![claimed.webhook_id]).await;
    if webhook.context("locking a webhook")?.is_none() {
        return Ok(());
    }
    let (status, response_status, error, retry_after) = match outcome {
        DeliveryOutcome::Delivered { response_status } => {
            (DeliveryStatus::Delivered, Some(*response_status), None, None)
        }
        DeliveryOutcome::Failed { response_status, error, retry_after: Some(delay) } => {
            (DeliveryStatus::Pending, *response_status, Some(error.as_str()), Some(*delay))
        }
        DeliveryOutcome::Failed { response_status, error, retry_after: None } => {
            (DeliveryStatus::Failed, *response_status, Some(error.as_str()), None)
        }
        DeliveryOutcome::Gone => (DeliveryStatus::Failed, Some(410), Some("the endpoint answered 410 (Gone)"), None),
    };
    let sql = "update webhook_deliveries
               set status = $3, response_status = $4, error = $5, lease_expires_at = null,
                   next_attempt_at = case when $6 then (select now from db_now) + $7 end,
                   finished_at = case when $6 then null else (select now from db_now) end
               where id = $1 and attempts = $2 and status = 'pending'";
    let params = params![
        claimed.id,
        claimed.attempt,
        status_name(status),
        response_status.map(i64::from),
        error,
        retry_after.is_some(),
        retry_after.unwrap_or_default(),
    ];
    if transaction.execute(sql, params).await.context("recording an attempt to deliver")? == 1 {
        count_outcome(&mut transaction, claimed.webhook_id, outcome, max_failures).await?;
    }
    transaction.commit().await
}

/// Counts the failures of a webhook in a row, and disables it after too many.
async fn count_outcome<D: Dialect>(
    transaction: &mut Transaction<D>,
    webhook: Uuid,
    outcome: &DeliveryOutcome,
    max_failures: u32,
) -> Result<()> {
    let sql = match outcome {
        DeliveryOutcome::Delivered { .. } => "update webhooks set consecutive_failures = 0 where id = $1",
        DeliveryOutcome::Failed { .. } | DeliveryOutcome::Gone => {
            "update webhooks set consecutive_failures = consecutive_failures + 1 where id = $1"
        }
    };
    transaction.execute(sql, params![webhook]).await.context("counting the failures of a webhook")?;
    let limit = if *outcome == DeliveryOutcome::Gone { 1 } else { max_failures };
    let sql = "update webhooks set disabled_at = (select now from db_now)
               where id = $1 and disabled_at is null and consecutive_failures >= $2";
    if transaction.execute(sql, params![webhook, limit]).await.context("disabling a webhook")? == 1 {
        let sql = "update webhook_deliveries set status = 'failed', error = 'the webhook was disabled',
                       next_attempt_at = null, lease_expires_at = null, finished_at = (select now from db_now)
                   where webhook_id = $1 and status = 'pending'";
        transaction.execute(sql, params![webhook]).await.context("ending the deliveries of a webhook")?;
    }
    Ok(())
}

/// Deletes finished deliveries that are older than `age`, and returns their number.
pub async fn delete_old<D: Dialect>(store: &SqlStore<D>, age: Duration) -> Result<u64> {
    let sql = "delete from webhook_deliveries where id in (
                   select id from webhook_deliveries where finished_at <= (select now from db_now) - $1 limit $2
               )";
    let mut deleted = 0;
    loop {
        let mut transaction = store.begin().await?;
        let batch = transaction.execute(sql, params![age, BATCH]).await.context("deleting old deliveries")?;
        transaction.commit().await?;
        deleted += batch;
        if batch < u64::from(BATCH) {
            return Ok(deleted);
        }
    }
}

fn status_name(status: DeliveryStatus) -> &'static str {
    match status {
        DeliveryStatus::Pending => "pending",
        DeliveryStatus::Delivered => "delivered",
        DeliveryStatus::Failed => "failed",
    }
}

fn decode(row: &impl DecodeRow) -> Result<WebhookDelivery> {
    let named = |column: &str| Ok::<_, espalier_core::error::Error>(Value::String(row.text(column)?));
    let response_status = row.opt_integer("response_status")?;
    Ok(WebhookDelivery {
        id: row.uuid("id")?,
        event: serde_json::from_value(named("event")?).context("reading the event of a delivery")?,
        status: serde_json::from_value(named("status")?).context("reading the status of a delivery")?,
        attempts: row_codec::decode_integer(row, "attempts")?,
        response_status: response_status.and_then(|status| u16::try_from(status).ok()),
        error: row.opt_text("error")?,
        next_attempt_at: row.opt_timestamp("next_attempt_at")?,
        created_at: row.timestamp("created_at")?,
        finished_at: row.opt_timestamp("finished_at")?,
        payload: row_codec::decode_json(row, "payload")?,
    })
}
