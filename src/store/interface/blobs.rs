//! [`BlobReservations`]: which blobs of object storage may not be deleted, and which are being deleted.

use crate::store::model::BlobKind;
use async_trait::async_trait;
use espalier_core::error::Result;
use std::time::Duration;
use uuid::Uuid;

/// Coordinates uploads and deletions of blobs between hosts whose clocks may differ: all times are those of the database.
#[async_trait]
pub trait BlobReservations: Send + Sync {
    /// Protects a blob from deletion for `duration`, in which its row must be added. Call it before the upload. `None` if the blob is being
    /// deleted: it has to be reserved again.
    async fn reserve_blob(&self, kind: BlobKind, name: &str, duration: Duration) -> Result<Option<Uuid>>;
    /// Protects all blobs from deletion for `duration`, while a backup copies them.
    async fn reserve_all_blobs(&self, duration: Duration) -> Result<Uuid>;
    /// Ends a reservation, once the row of the blob is added or the backup is complete.
    async fn release_blob(&self, reservation: Uuid) -> Result<()>;
    /// Begins the deletion of a blob, unless a row refers to it or it is reserved. Returns whether it may be deleted now. A deletion that
    /// does not finish within `timeout` may be begun again, and no longer prevents a reservation.
    #[must_use = "if it returns false, the blob may not be deleted"]
    async fn begin_blob_deletion(&self, kind: BlobKind, name: &str, timeout: Duration) -> Result<bool>;
    /// Ends the deletion of a blob.
    async fn finish_blob_deletion(&self, kind: BlobKind, name: &str) -> Result<()>;
    /// Deletes the rows of reservations and deletions whose time is over, and returns their number.
    async fn delete_expired_reservations(&self) -> Result<u64>;
}
