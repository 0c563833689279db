//! [`Reservation`]: protects a blob of object storage whose row is about to be added.

use crate::store::interface::Store;
use std::sync::Arc;
use uuid::Uuid;

/// Protects a blob of object storage from deletion until it is released, or for an hour.
#[must_use = "the reservation has to be released"]
pub struct Reservation(pub(super) Option<(Arc<dyn Store>, Uuid)>);

impl Reservation {
    /// Ends the protection, once a row refers to the blob.
    pub async fn release(self) {
        if let Some((store, id)) = self.0
            && let Err(error) = store.release_blob(id).await
        {
            tracing::warn!(%error, "the reservation of a blob stays until its time is over");
        }
    }
}
