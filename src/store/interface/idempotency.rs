//! [`IdempotencyStore`]: requests with an idempotency key.

use crate::store::model::{KeyedRequest, RequestClaim, RequestStart, StoredResponse};
use async_trait::async_trait;
use espalier_core::error::Result;
use std::time::Duration;

#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// Starts an attempt of a request, unless another attempt holds the lease or the request was carried out within `lifetime`.
    async fn begin_request(&self, request: &KeyedRequest, lease: Duration, lifetime: Duration) -> Result<RequestStart>;
    /// Extends the lease of an attempt. Returns whether it was still its own.
    async fn extend_request(&self, claim: &RequestClaim, lease: Duration) -> Result<bool>;
    /// Ends an attempt without a response, so that the next one can start.
    async fn release_request(&self, claim: &RequestClaim) -> Result<()>;
    /// Stores the response of an attempt. Returns whether the request was still its own.
    async fn finish_request(&self, claim: &RequestClaim, body_hash: &str, response: &StoredResponse) -> Result<bool>;
    /// Deletes the keys that are older than `lifetime` and not in flight, and returns their number.
    async fn delete_expired_requests(&self, lifetime: Duration) -> Result<u64>;
}
