//! [`WebhookStore`]: webhooks and their deliveries.

use crate::store::model::{ClaimedDelivery, DeliveryOutcome, NewWebhook, PageRequest, Webhook, WebhookDelivery};
use async_trait::async_trait;
use espalier_core::error::Result;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Adds a webhook.
    ///
    /// # Errors
    /// `Conflict` (`too_many_webhooks`) if the owner already has `max_webhooks`.
    async fn add_webhook(&self, webhook: NewWebhook, max_webhooks: u64) -> Result<Webhook>;
    async fn webhook(&self, owner: &str, id: Uuid) -> Result<Webhook>;
    /// Lists webhooks, newest first.
    async fn webhooks(&self, owner: &str, page: PageRequest) -> Result<Vec<Webhook>>;
    /// Deletes a webhook with its deliveries.
    async fn delete_webhook(&self, owner: &str, id: Uuid) -> Result<()>;
    /// Enables a webhook and sets its count of failures to zero.
    async fn enable_webhook(&self, owner: &str, id: Uuid) -> Result<Webhook>;
    /// Adds a delivery of the event `webhook.test`. The transaction that ends a job adds those of the other events.
    ///
    /// # Errors
    /// `Conflict` (`webhook_disabled`).
    async fn add_test_delivery(&self, owner: &str, webhook: Uuid) -> Result<WebhookDelivery>;
    /// Lists the deliveries of a webhook, newest first.
    async fn deliveries(&self, owner: &str, webhook: Uuid, page: PageRequest) -> Result<Vec<WebhookDelivery>>;
    /// Queues a delivery again that has ended.
    ///
    /// # Errors
    /// `Conflict` (`delivery_pending`, `webhook_disabled`).
    async fn resend_delivery(&self, owner: &str, webhook: Uuid, delivery: Uuid) -> Result<WebhookDelivery>;
    /// Claims the delivery of any owner that has been due longest, and counts an attempt.
    async fn claim_delivery(&self, lease: Duration) -> Result<Option<ClaimedDelivery>>;
    /// Records the outcome of an attempt, unless the next one has started. After `max_failures` failed attempts of a webhook in a row,
    /// or if its endpoint is gone, it is disabled and its pending deliveries have failed.
    async fn record_delivery(
        &self,
        claimed: &ClaimedDelivery,
        outcome: &DeliveryOutcome,
        max_failures: u32,
    ) -> Result<()>;
    /// Deletes deliveries that ended before `age`, and returns their number.
    async fn delete_old_deliveries(&self, age: Duration) -> Result<u64>;
}
