//! Delivery of webhooks: claims deliveries that are due, sends them, and records the outcome.
//!
//! The transaction that ends a job adds the rows, so that none is lost. A claim has a lease, so that several servers can deliver from one
//! database; after a crash the delivery is sent again (at least once), with the same id.

mod address_policy;
mod client;
mod signature;

pub use address_policy::AddressPolicy;
pub use client::{CallResult, WebhookClient, check_url};
pub use signature::new_secret;

use crate::store::{ClaimedDelivery, Store};
use espalier_core::error::{Context, Result};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Interval at which the store is asked for deliveries that are due.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Deliveries that are sent at once.
const MAX_CONCURRENT: usize = 8;
/// Time by which a lease exceeds the timeout of a request.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Delays after the failed attempts, as Standard Webhooks recommends; after the last one the delivery has failed.
const RETRY_DELAYS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
];

/// Settings of webhooks.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    pub addresses: AddressPolicy,
    /// Maximum time of a request.
    pub timeout: Duration,
    /// Number of failed attempts in a row after which a webhook is disabled.
    pub max_failures: u32,
    /// Maximum number of webhooks of an owner.
    pub max_webhooks: u64,
    /// How long finished deliveries are kept.
    pub keep_deliveries: Duration,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::default(),
            timeout: Duration::from_secs(15),
            max_failures: 20,
            max_webhooks: 20,
            keep_deliveries: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Delivers until the future is dropped.
pub async fn run(store: Arc<dyn Store>, settings: WebhookSettings) -> Infallible {
    let client = Arc::new(WebhookClient::new(settings.addresses.clone(), settings.timeout));
    let mut in_flight = JoinSet::new();
    loop {
        while in_flight.len() >= MAX_CONCURRENT {
            in_flight.join_next().await;
        }
        match store.claim_delivery(settings.timeout + LEASE_MARGIN).await {
            Ok(Some(delivery)) => {
                let (store, client) = (Arc::clone(&store), Arc::clone(&client));
                in_flight.spawn(deliver(store, client, delivery, settings.max_failures));
            }
            Ok(None) => tokio::time::sleep(POLL_INTERVAL).await,
            Err(error) => {
                tracing::warn!(%error, "webhooks are not delivered; trying again");
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }
}

async fn deliver(store: Arc<dyn Store>, client: Arc<WebhookClient>, delivery: ClaimedDelivery, max_failures: u32) {
    let (id, webhook, attempt) = (delivery.id, delivery.webhook_id, delivery.attempt);
    if let Err(error) = try_deliver(store, client, delivery, max_failures).await {
        tracing::warn!(%error, delivery = %id, %webhook, attempt, "the outcome of a delivery was not recorded; it is sent again");
    }
}

async fn try_deliver(
    store: Arc<dyn Store>,
    client: Arc<WebhookClient>,
    delivery: ClaimedDelivery,
    max_failures: u32,
) -> Result<()> {
    let sent = delivery.clone();
    let call = tokio::task::spawn_blocking(move || client.call(&sent)).await.context("calling a webhook")??;
    if let CallResult::Failed { status, error } = &call {
        tracing::info!(delivery = %delivery.id, webhook = %delivery.webhook_id, attempt = delivery.attempt, status, error, "webhook not delivered");
    }
    let outcome = call.into_outcome(retry_delay(delivery.attempt, delivery.id));
    store.record_delivery(&delivery, &outcome, max_failures).await
}

/// Delay after an attempt, up to a fifth longer, so that the deliveries of an outage do not come back at once. `None` after the last.
fn retry_delay(attempt: u32, delivery: Uuid) -> Option<Duration> {
    let delay = RETRY_DELAYS.get(usize::try_from(attempt).ok()?.checked_sub(1)?)?;
    let random_byte = delivery.as_bytes()[15];
    Some(*delay + delay.mul_f64(f64::from(random_byte) / 255.0 / 5.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end() {
        let id = Uuid::from_u128(0);
        let delays: Vec<Option<Duration>> = (1..=10).map(|attempt| retry_delay(attempt, id)).collect();
        assert_eq!(delays[0], Some(Duration::from_secs(5)));
        assert!(delays[..9].is_sorted() && delays[9].is_none());
        let jittered = retry_delay(2, Uuid::from_u128(255)).unwrap();
        assert_eq!(jittered, Duration::from_secs(360));
    }
}
