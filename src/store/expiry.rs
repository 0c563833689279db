//! Deletes rows that have a lifetime of their own, of all owners.

use super::interface::Store;
use espalier_core::error::Result;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How long rows are kept.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    pub idempotency_keys: Duration,
    pub webhook_deliveries: Duration,
}

/// Deletes expired rows now and at every interval.
pub async fn run(store: Arc<dyn Store>, lifetimes: Lifetimes, interval: Duration) -> Infallible {
    loop {
        match delete_expired(store.as_ref(), &lifetimes).await {
            Ok((0, 0)) => {}
            Ok((keys, deliveries)) => {
                tracing::info!(idempotency_keys = keys, webhook_deliveries = deliveries, "expired rows deleted");
            }
            Err(error) => tracing::warn!(%error, "expired rows not deleted; trying again later"),
        }
        tokio::time::sleep(interval).await;
    }
}

/// Returns the numbers of deleted idempotency keys and deliveries.
async fn delete_expired(store: &dyn Store, lifetimes: &Lifetimes) -> Result<(u64, u64)> {
    let keys = store.delete_expired_requests(lifetimes.idempotency_keys).await?;
    Ok((keys, store.delete_old_deliveries(lifetimes.webhook_deliveries).await?))
}
