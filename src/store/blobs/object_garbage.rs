//! Garbage collection of object storage: deletes the objects of blobs that no row refers to.

use super::blob_store::{BlobStore, blocking};
use super::garbage_collection::{GcAction, GcReport, LiveBlobs};
use super::layout::is_sha256_hex;
use super::object_storage::ObjectStorage;
use crate::store::model::BlobKind;
use espalier_core::error::Result;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

impl BlobStore {
    /// Removes the blobs that no row refers to. Checkpoints in object storage are removed by
    /// [`remove_checkpoints`](Self::remove_checkpoints).
    pub async fn collect_garbage(&self, live: Arc<LiveBlobs>, min_age: Duration, action: GcAction) -> Result<GcReport> {
        let (data_dir, in_directory) = (Arc::clone(self.data_dir()), Arc::clone(&live));
        let found =
            blocking("collecting garbage", move || data_dir.garbage_collect(&in_directory, min_age, action)).await?;
        match self.object_storage() {
            // What object storage has counts, not the copies.
            Some(objects) => self.collect_objects(objects, &live, action).await,
            None => Ok(found),
        }
    }

    async fn collect_objects(&self, objects: &ObjectStorage, live: &LiveBlobs, action: GcAction) -> Result<GcReport> {
        let mut report = GcReport::default();
        let mut by_adapter: BTreeMap<String, (Vec<String>, u64)> = BTreeMap::new();
        for object in objects.list("datasets").await? {
            let Some(hash) = object.key.strip_prefix("datasets/").filter(|hash| is_sha256_hex(hash)) else { continue };
            if !live.dataset_hashes.contains(hash)
                && self
                    .collect_blob(objects, BlobKind::Dataset, hash, std::slice::from_ref(&object.key), action)
                    .await?
            {
                report.datasets += 1;
                report.bytes += object.bytes;
            }
        }
        for object in objects.list("adapters").await? {
            let version = object.key.split('/').nth(1).filter(|version| is_sha256_hex(version));
            if let Some(version) = version.filter(|version| !live.adapter_versions.contains(*version)) {
                let (keys, bytes) = by_adapter.entry(version.to_string()).or_default();
                keys.push(object.key.clone());
                *bytes += object.bytes;
            }
        }
        for (version, (keys, bytes)) in by_adapter {
            if self.collect_blob(objects, BlobKind::Adapter, &version, &keys, action).await? {
                report.adapters += 1;
                report.bytes += bytes;
            }
        }
        if action == GcAction::Remove {
            self.store().delete_expired_reservations().await?;
        }
        Ok(report)
    }

    async fn collect_blob(
        &self,
        objects: &ObjectStorage,
        kind: BlobKind,
        name: &str,
        keys: &[String],
        action: GcAction,
    ) -> Result<bool> {
        match action {
            GcAction::Remove => self.delete_blob(objects, kind, name, keys).await,
            GcAction::Report => Ok(true),
        }
    }
}
