//! Keeps keys and owners as the database has them, and stores usage and the last uses of keys.

use super::auth::Authenticator;
use super::auth::access;
use super::usage_counters::UsageCounters;
use crate::store::Store;
use espalier_core::error::Result;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// What is exchanged with the database.
#[derive(Clone)]
pub struct AccessSync {
    pub authenticator: Arc<Authenticator>,
    pub usage: Arc<UsageCounters>,
    pub store: Arc<dyn Store>,
}

impl AccessSync {
    /// Exchanges at every interval. While the database is away, the known keys stay valid and usage is kept in memory.
    pub async fn run(self, interval: Duration) -> Infallible {
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "keys cannot be read from the database; trying again");
            }
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "usage cannot be written to the database; trying again");
            }
        }
    }

    /// Reads the keys and owners if they have changed.
    pub async fn refresh(&self) -> Result<()> {
        access::refresh(&self.authenticator, self.store.as_ref()).await.map(drop)
    }

    /// Writes usage and the last uses of keys.
    pub async fn flush(&self) -> Result<()> {
        let increments = self.usage.take();
        if !increments.is_empty()
            && let Err(error) = self.store.add_usage(&increments).await
        {
            self.usage.put_back(increments);
            return Err(error);
        }
        let uses = self.authenticator.take_uses();
        match uses.is_empty() {
            true => Ok(()),
            false => self.store.record_key_use(&uses).await,
        }
    }
}
