//! Webhooks and their deliveries: what the end of a job adds, claims under a lease, outcomes, and deletion.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{
    ClaimedDelivery, DeliveryOutcome, DeliveryStatus, NewWebhook, PageRequest, Store, Webhook, WebhookDelivery,
    WebhookEvent,
};
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    webhooks_of_an_owner_are_listed_and_deleted,
    number_of_webhooks_is_bounded,
    end_of_a_job_adds_its_deliveries,
    job_that_goes_on_adds_nothing,
    delivery_is_claimed_once_until_its_lease_ends,
    failed_delivery_is_repeated_after_its_delay,
    webhook_is_disabled_after_failures_in_a_row,
    webhook_that_is_gone_is_disabled_at_once,
    finished_delivery_is_sent_again_on_request,
    deliveries_are_listed_in_pages,
    old_deliveries_are_deleted,
);

const MAX_WEBHOOKS: u64 = 3;
const MAX_FAILURES: u32 = 3;
const MINUTE: Duration = Duration::from_secs(60);

async fn add_webhook(store: &dyn Store, events: &[WebhookEvent]) -> Webhook {
    let webhook = NewWebhook {
        id: Uuid::now_v7(),
        owner: OWNER.to_string(),
        url: "https://example.com/hooks".to_string(),
        events: events.to_vec(),
        secret: "whsec_c2VjcmV0".to_string(),
    };
    store.add_webhook(webhook, MAX_WEBHOOKS).await.unwrap()
}

async fn deliveries(store: &dyn Store, webhook: &Webhook) -> Vec<WebhookDelivery> {
    store.deliveries(OWNER, webhook.id, ALL).await.unwrap()
}

async fn claim_delivery(store: &dyn Store) -> ClaimedDelivery {
    store.claim_delivery(LEASE).await.unwrap().expect("a delivery is due")
}

async fn record(store: &dyn Store, claimed: &ClaimedDelivery, outcome: &DeliveryOutcome) {
    store.record_delivery(claimed, outcome, MAX_FAILURES).await.unwrap();
}

fn failure(retry_after: Option<Duration>) -> DeliveryOutcome {
    DeliveryOutcome::Failed { response_status: Some(500), error: "the endpoint answered 500".to_string(), retry_after }
}

const SUCCESS: DeliveryOutcome = DeliveryOutcome::Delivered { response_status: 204 };

async fn webhooks_of_an_owner_are_listed_and_deleted(db: &Database) {
    let first = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    let second = add_webhook(&**db, &[WebhookEvent::JobFailed]).await;
    assert_eq!((second.disabled_at, second.consecutive_failures), (None, 0));
    assert_eq!(db.webhooks(OWNER, ALL).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(db.webhook(OWNER, first.id).await.unwrap(), first);
    assert!(db.webhooks(OTHER_OWNER, ALL).await.unwrap().is_empty());
    expect_error(db.webhook(OTHER_OWNER, first.id).await, "webhook_not_found");
    expect_error(db.delete_webhook(OTHER_OWNER, first.id).await, "webhook_not_found");
    expect_error(db.enable_webhook(OTHER_OWNER, first.id).await, "webhook_not_found");
    expect_error(db.deliveries(OTHER_OWNER, first.id, ALL).await, "webhook_not_found");
    expect_error(db.add_test_delivery(OTHER_OWNER, first.id).await, "webhook_not_found");
    db.add_test_delivery(OWNER, second.id).await.unwrap();
    db.delete_webhook(OWNER, second.id).await.unwrap();
    expect_error(db.webhook(OWNER, second.id).await, "webhook_not_found");
    assert!(db.claim_delivery(LEASE).await.unwrap().is_none());
    let page = PageRequest { limit: 10, after: Some(second.id) };
    assert_eq!(db.webhooks(OWNER, page).await.unwrap(), [first], "the id of a deleted webhook stays valid as a cursor");
}

async fn number_of_webhooks_is_bounded(db: &Database) {
    for _ in 0..MAX_WEBHOOKS {
        add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    }
    let webhook = NewWebhook {
        id: Uuid::now_v7(),
        owner: OWNER.to_string(),
        url: "https://example.com".to_string(),
        events: vec![WebhookEvent::JobFailed],
        secret: String::new(),
    };
    expect_error(db.add_webhook(webhook.clone(), MAX_WEBHOOKS).await, "too_many_webhooks");
    let other = NewWebhook { owner: OTHER_OWNER.to_string(), ..webhook };
    db.add_webhook(other, MAX_WEBHOOKS).await.unwrap();
}

async fn end_of_a_job_adds_its_deliveries(db: &Database) {
    let all = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    let failed_only = add_webhook(&**db, &[WebhookEvent::JobFailed]).await;
    let claimed = add_and_claim_job(&**db).await;
    let adapter = new_adapter(Some("intents"), "a1");
    let metrics = serde_json::json!({"accuracy": 0.5, "examples": ["a text"], "per_label": {"a label": 1}});
    db.publish(&claimed.lease, adapter, &metrics).await.unwrap();
    let sent = deliveries(&**db, &all).await;
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].event, sent[0].status), (WebhookEvent::JobSucceeded, DeliveryStatus::Pending));
    let payload = &sent[0].payload;
    assert_eq!((&payload["type"], &payload["data"]["status"]), (&"job.succeeded".into(), &"succeeded".into()));
    assert_eq!(payload["data"]["job_id"], claimed.job.id.to_string());
    assert_eq!(payload["data"]["adapter"]["name"], "intents");
    assert_eq!(payload["data"]["adapter"]["version"], sha256("a1"));
    assert_eq!(payload["data"]["metrics"], serde_json::json!({"accuracy": 0.5}), "numbers only");
    assert!(payload["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(deliveries(&**db, &failed_only).await.is_empty());

    let claimed = add_and_claim_job(&**db).await;
    db.fail_job(&claimed.lease, &job_error()).await.unwrap();
    let sent = deliveries(&**db, &failed_only).await;
    assert_eq!((sent.len(), &sent[0].payload["data"]["error"]["code"]), (1, &job_error().code.into()));
    let queued = add_job(&**db).await;
    db.cancel_job(OWNER, queued.id).await.unwrap();
    let events: Vec<WebhookEvent> = deliveries(&**db, &all).await.iter().map(|delivery| delivery.event).collect();
    assert_eq!(events, [WebhookEvent::JobCancelled, WebhookEvent::JobFailed, WebhookEvent::JobSucceeded]);
}

async fn job_that_goes_on_adds_nothing(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    let claimed = add_and_claim_job(&**db).await;
    db.requeue(&claimed.lease).await.unwrap();
    db.pause_job(OWNER, claimed.job.id).await.unwrap();
    db.resume_job(OWNER, claimed.job.id).await.unwrap();
    assert!(deliveries(&**db, &webhook).await.is_empty());
}

async fn delivery_is_claimed_once_until_its_lease_ends(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    assert!(db.claim_delivery(LEASE).await.unwrap().is_none());
    let delivery = db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    let first = claim_delivery(&**db).await;
    assert_eq!((first.id, first.webhook_id, first.attempt), (delivery.id, webhook.id, 1));
    assert_eq!((first.url.as_str(), first.secret.as_str()), ("https://example.com/hooks", "whsec_c2VjcmV0"));
    assert_eq!(first.payload["type"], "webhook.test");
    assert!(db.claim_delivery(LEASE).await.unwrap().is_none());
    expire_leases(&**db).await;
    let second = claim_delivery(&**db).await;
    assert_eq!((second.id, second.attempt), (delivery.id, 2));
    record(&**db, &first, &SUCCESS).await;
    assert_eq!(
        deliveries(&**db, &webhook).await[0].status,
        DeliveryStatus::Pending,
        "the first attempt has lost its lease"
    );
    record(&**db, &second, &SUCCESS).await;
    let delivered = &deliveries(&**db, &webhook).await[0];
    assert_eq!((delivered.status, delivered.response_status), (DeliveryStatus::Delivered, Some(204)));
    assert!(delivered.finished_at.is_some() && delivered.next_attempt_at.is_none());
}

async fn failed_delivery_is_repeated_after_its_delay(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    let first = claim_delivery(&**db).await;
    record(&**db, &first, &failure(Some(MINUTE))).await;
    assert!(db.claim_delivery(LEASE).await.unwrap().is_none());
    let waiting = &deliveries(&**db, &webhook).await[0];
    assert_eq!((waiting.attempts, waiting.response_status), (1, Some(500)));
    assert_eq!(waiting.error.as_deref(), Some("the endpoint answered 500"));
    db.advance_clock(MINUTE).await.unwrap();
    let second = claim_delivery(&**db).await;
    assert_eq!(db.webhook(OWNER, webhook.id).await.unwrap().consecutive_failures, 1);
    record(&**db, &second, &SUCCESS).await;
    assert_eq!(db.webhook(OWNER, webhook.id).await.unwrap().consecutive_failures, 0);
    let delivered = &deliveries(&**db, &webhook).await[0];
    assert_eq!((delivered.attempts, delivered.error.as_deref()), (2, None));
}

async fn webhook_is_disabled_after_failures_in_a_row(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    for _ in 0..MAX_FAILURES {
        let claimed = claim_delivery(&**db).await;
        record(&**db, &claimed, &failure(Some(MINUTE))).await;
        db.advance_clock(MINUTE).await.unwrap();
    }
    let disabled = db.webhook(OWNER, webhook.id).await.unwrap();
    assert!(disabled.disabled_at.is_some());
    assert!(deliveries(&**db, &webhook).await.iter().all(|delivery| delivery.status == DeliveryStatus::Failed));
    expect_error(db.add_test_delivery(OWNER, webhook.id).await, "webhook_disabled");
    let job = add_job(&**db).await;
    db.cancel_job(OWNER, job.id).await.unwrap();
    assert_eq!(deliveries(&**db, &webhook).await.len(), 2, "a disabled webhook gets no events");
    let enabled = db.enable_webhook(OWNER, webhook.id).await.unwrap();
    assert_eq!((enabled.disabled_at, enabled.consecutive_failures), (None, 0));
    db.add_test_delivery(OWNER, webhook.id).await.unwrap();
}

async fn webhook_that_is_gone_is_disabled_at_once(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    let claimed = claim_delivery(&**db).await;
    record(&**db, &claimed, &DeliveryOutcome::Gone).await;
    assert!(db.webhook(OWNER, webhook.id).await.unwrap().disabled_at.is_some());
    let failed = &deliveries(&**db, &webhook).await[0];
    assert_eq!((failed.status, failed.response_status), (DeliveryStatus::Failed, Some(410)));
}

async fn finished_delivery_is_sent_again_on_request(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    let delivery = db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    expect_error(db.resend_delivery(OWNER, webhook.id, delivery.id).await, "delivery_pending");
    expect_error(db.resend_delivery(OTHER_OWNER, webhook.id, delivery.id).await, "webhook_not_found");
    expect_error(db.resend_delivery(OWNER, webhook.id, Uuid::now_v7()).await, "delivery_not_found");
    let claimed = claim_delivery(&**db).await;
    record(&**db, &claimed, &failure(None)).await;
    let queued = db.resend_delivery(OWNER, webhook.id, delivery.id).await.unwrap();
    assert_eq!((queued.status, queued.attempts, queued.finished_at), (DeliveryStatus::Pending, 0, None));
    let again = claim_delivery(&**db).await;
    assert_eq!((again.id, again.attempt, again.payload), (delivery.id, 1, claimed.payload));
}

async fn deliveries_are_listed_in_pages(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, db.add_test_delivery(OWNER, webhook.id).await.unwrap().id);
    }
    let page = async |limit, after| {
        let rows = db.deliveries(OWNER, webhook.id, PageRequest { limit, after }).await.unwrap();
        rows.iter().map(|delivery| delivery.id).collect::<Vec<_>>()
    };
    assert_eq!(page(2, None).await, ids[..2]);
    assert_eq!(page(2, Some(ids[1])).await, ids[2..]);
    let other = PageRequest { limit: 2, after: Some(Uuid::now_v7()) };
    expect_error(db.deliveries(OWNER, webhook.id, other).await, "unknown_after");
}

async fn old_deliveries_are_deleted(db: &Database) {
    let webhook = add_webhook(&**db, &WebhookEvent::JOB_EVENTS).await;
    db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    let claimed = claim_delivery(&**db).await;
    record(&**db, &claimed, &SUCCESS).await;
    let pending = db.add_test_delivery(OWNER, webhook.id).await.unwrap();
    db.advance_clock(MINUTE).await.unwrap();
    assert_eq!(db.delete_old_deliveries(MINUTE * 2).await.unwrap(), 0);
    assert_eq!(db.delete_old_deliveries(MINUTE).await.unwrap(), 1);
    let left: Vec<Uuid> = deliveries(&**db, &webhook).await.iter().map(|delivery| delivery.id).collect();
    assert_eq!(left, [pending.id]);
}
