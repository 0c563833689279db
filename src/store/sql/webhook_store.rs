//! SQL implementation of [`WebhookStore`].

use super::connection::SqlStore;
use super::dialect::Dialect;
use super::{webhook_deliveries, webhooks};
use crate::store::interface::WebhookStore;
use crate::store::model::{ClaimedDelivery, DeliveryOutcome, NewWebhook, PageRequest, Webhook, WebhookDelivery};
use async_trait::async_trait;
use espalier_core::error::Result;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
impl<D: Dialect> WebhookStore for SqlStore<D> {
    async fn add_webhook(&self, webhook: NewWebhook, max_webhooks: u64) -> Result<Webhook> {
        webhooks::add(self, &webhook, max_webhooks).await
    }

    async fn webhook(&self, owner: &str, id: Uuid) -> Result<Webhook> {
        webhooks::read(self, owner, id).await
    }

    async fn webhooks(&self, owner: &str, page: PageRequest) -> Result<Vec<Webhook>> {
        webhooks::list(self, owner, page).await
    }

    async fn delete_webhook(&self, owner: &str, id: Uuid) -> Result<()> {
        webhooks::delete(self, owner, id).await
    }

    async fn enable_webhook(&self, owner: &str, id: Uuid) -> Result<Webhook> {
        webhooks::enable(self, owner, id).await
    }

    async fn add_test_delivery(&self, owner: &str, webhook: Uuid) -> Result<WebhookDelivery> {
        webhook_deliveries::add_test(self, owner, webhook).await
    }

    async fn deliveries(&self, owner: &str, webhook: Uuid, page: PageRequest) -> Result<Vec<WebhookDelivery>> {
        webhook_deliveries::list(self, owner, webhook, page).await
    }

    async fn resend_delivery(&self, owner: &str, webhook: Uuid, delivery: Uuid) -> Result<WebhookDelivery> {
        webhook_deliveries::resend(self, owner, webhook, delivery).await
    }

    async fn claim_delivery(&self, lease: Duration) -> Result<Option<ClaimedDelivery>> {
        webhook_deliveries::claim(self, lease).await
    }

    async fn record_delivery(
        &self,
        claimed: &ClaimedDelivery,
        outcome: &DeliveryOutcome,
        max_failures: u32,
    ) -> Result<()> {
        webhook_deliveries::record(self, claimed, outcome, max_failures).await
    }

    async fn delete_old_deliveries(&self, age: Duration) -> Result<u64> {
        webhook_deliveries::delete_old(self, age).await
    }
}
