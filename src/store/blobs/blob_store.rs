//! [`BlobStore`]: the blobs of the service, in a data directory alone, or in object storage with the data directory as a cache.
//!
//! Keys in object storage, under the prefix of `--blob-store`:
//!
//! ```text
//! datasets/<sha256>
//! adapters/<version>/adapter_config.json, adapter_model.safetensors, espalier.json
//! checkpoints/<job>/<step>-<sha256>.tar
//! quarantine/…             objects whose content is not what their key says
//! ```
//!
//! A blob is uploaded before the row that refers to it is added, and deleted after that row. A reservation in the database keeps other
//! hosts from deleting a blob whose row is about to be added ([`BlobReservations`](crate::store::BlobReservations)). A blob in the data
//! directory is verified when it is downloaded, and again by those who read it.

use super::checksum_mismatches::ChecksumMismatches;
use super::data_dir::DataDir;
use super::key_locks::KeyLocks;
use super::missing_objects::MissingObjects;
use super::object_storage::ObjectStorage;
use super::reservation::Reservation;
use crate::store::interface::Store;
use crate::store::model::BlobKind;
use espalier_core::artifact::{AdapterFiles, PublishedAdapter};
use espalier_core::error::{Context, Result};
use prometheus_client::registry::Registry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Time in which the row of an uploaded blob must be added.
const RESERVATION: Duration = Duration::from_secs(3600);
/// Time after which another process may repeat the deletion of a blob. Longer than all retries of a call.
const DELETION_TIMEOUT: Duration = Duration::from_secs(300);
/// Delay before a blob that is being deleted is reserved again.
const RESERVATION_DELAY: Duration = Duration::from_millis(200);

/// The blobs that rows refer to.
pub struct BlobStore {
    data_dir: Arc<DataDir>,
    store: Arc<dyn Store>,
    objects: Option<ObjectStorage>,
    /// Bytes of datasets and adapters in the data directory, if it is a cache.
    cache_bytes: u64,
    downloads: KeyLocks,
    missing: MissingObjects,
}

impl BlobStore {
    /// Without object storage the data directory holds all blobs, and `cache_bytes` has no effect.
    pub fn new(
        data_dir: Arc<DataDir>,
        store: Arc<dyn Store>,
        objects: Option<ObjectStorage>,
        cache_bytes: u64,
    ) -> Self {
        let (downloads, missing) = (KeyLocks::default(), MissingObjects::default());
        Self { data_dir, store, objects, cache_bytes, downloads, missing }
    }

    pub fn register_metrics(&self, registry: &mut Registry) {
        if let Some(objects) = &self.objects {
            objects.metrics().register(registry);
        }
    }

    /// Directory of this process, for everything that is not a blob.
    pub fn data_dir(&self) -> &Arc<DataDir> {
        &self.data_dir
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(super) fn object_storage(&self) -> Option<&ObjectStorage> {
        self.objects.as_ref()
    }

    /// Path of the file of a dataset, downloaded if it is not in the data directory. There is no file at the path if there is none in
    /// object storage either.
    pub async fn dataset(&self, hash: &str) -> Result<PathBuf> {
        let path = self.data_dir.dataset_path(hash);
        self.download_once(hash, &path, |objects| self.download_dataset(objects, hash)).await?;
        Ok(path)
    }

    /// Downloads a blob unless it is at `path`. Concurrent calls for one blob share the download.
    async fn download_once<'a, F: Future<Output = Result<()>>>(
        &'a self,
        name: &str,
        path: &Path,
        download: impl FnOnce(&'a ObjectStorage) -> F,
    ) -> Result<()> {
        let Some(objects) = &self.objects else { return Ok(()) };
        if self.data_dir.touch(path) {
            return Ok(());
        }
        let _guard = self.downloads.lock(name).await;
        match self.data_dir.touch(path) {
            true => Ok(()),
            // The future is large, and most calls need none.
            false => Box::pin(download(objects)).await,
        }
    }

    async fn download_dataset(&self, objects: &ObjectStorage, hash: &str) -> Result<()> {
        let key = dataset_key(hash);
        let mut mismatches = ChecksumMismatches::default();
        loop {
            let temporary = self.data_dir.temp_dir().join(Uuid::now_v7().to_string());
            match self.missing.retry(hash, || objects.download(&key, &temporary)).await? {
                None => return Ok(()),
                Some(found) if found == hash => {
                    let (data_dir, hash) = (Arc::clone(&self.data_dir), hash.to_string());
                    blocking("keeping a downloaded dataset", move || data_dir.put_dataset(&temporary, &hash)).await?;
                    return self.evict().await;
                }
                Some(found) => {
                    drop(tokio::fs::remove_file(&temporary).await);
                    objects.metrics().record_damage();
                    if mismatches.record(hash, found)? {
                        return objects.quarantine(&key).await;
                    }
                }
            }
        }
    }

    /// Keeps a complete file whose sha256 is `hash`. Release the reservation once its row is added.
    pub async fn put_dataset(&self, file: PathBuf, hash: &str) -> Result<Reservation> {
        let (data_dir, name) = (Arc::clone(&self.data_dir), hash.to_string());
        let path = blocking("storing a dataset", move || data_dir.put_dataset(&file, &name)).await?;
        let Some(objects) = &self.objects else { return Ok(Reservation(None)) };
        let reservation = self.reserve(BlobKind::Dataset, hash).await?;
        let key = dataset_key(hash);
        if !objects.contains(&key).await? {
            objects.upload(&key, &path).await?;
        }
        self.evict().await?;
        Ok(reservation)
    }

    /// Removes the file of a dataset without a row, unless its row may be about to be added again.
    pub async fn remove_dataset(&self, hash: &str) -> Result<()> {
        let (data_dir, name) = (Arc::clone(&self.data_dir), hash.to_string());
        blocking("removing a dataset", move || data_dir.remove_dataset(&name)).await?;
        match &self.objects {
            Some(objects) => self.delete_blob(objects, BlobKind::Dataset, hash, &[dataset_key(hash)]).await.map(drop),
            None => Ok(()),
        }
    }

    /// Directory with one folder for each adapter version, in which `version` is, unless it is not in object storage either.
    pub async fn adapters_dir(&self, version: &str) -> Result<PathBuf> {
        let dir = self.data_dir.adapters_dir();
        self.download_once(version, &dir.join(version), |objects| self.download_adapter(objects, version)).await?;
        Ok(dir)
    }

    async fn download_adapter(&self, objects: &ObjectStorage, version: &str) -> Result<()> {
        let mut mismatches = ChecksumMismatches::default();
        loop {
            let files = self.missing.retry(version, || get_adapter(objects, version)).await?;
            let Some(files) = files else { return Ok(()) };
            let found = files.version();
            if found == version {
                let data_dir = Arc::clone(&self.data_dir);
                blocking("keeping a downloaded adapter", move || data_dir.put_adapter_files(&files)).await?;
                return self.evict().await;
            }
            objects.metrics().record_damage();
            if mismatches.record(version, found)? {
                for key in adapter_keys(version) {
                    objects.quarantine(&key).await?;
                }
                return Ok(());
            }
        }
    }

    /// Writes an adapter folder and protects it from removal until its row is added. `write` gets the directory of all adapters and a
    /// temporary directory. Release the reservation once the row is added.
    pub async fn put_adapter(
        &self,
        write: impl Fn(&Path, &Path) -> Result<PublishedAdapter> + Send + 'static,
    ) -> Result<(PublishedAdapter, Reservation)> {
        let data_dir = Arc::clone(&self.data_dir);
        let published = blocking("writing an adapter", move || data_dir.put_adapter(write)).await?;
        let Some(objects) = &self.objects else { return Ok((published, Reservation(None))) };
        let reservation = self.reserve(BlobKind::Adapter, &published.version).await?;
        self.upload_adapter(objects, &published.version).await?;
        self.evict().await?;
        Ok((published, reservation))
    }

    /// Uploads an adapter whose folder is in the data directory. Release the reservation once its row is added. Does nothing without object
    /// storage.
    pub async fn upload_stored_adapter(&self, version: &str) -> Result<Reservation> {
        let Some(objects) = &self.objects else { return Ok(Reservation(None)) };
        let reservation = self.reserve(BlobKind::Adapter, version).await?;
        self.upload_adapter(objects, version).await?;
        Ok(reservation)
    }

    async fn upload_adapter(&self, objects: &ObjectStorage, version: &str) -> Result<()> {
        let keys = adapter_keys(version);
        // The last key is uploaded last: where it is, the others are.
        if objects.contains(&keys[2]).await? {
            return Ok(());
        }
        let folder = self.data_dir.adapters_dir().join(version);
        for key in keys {
            let name = key.rsplit('/').next().unwrap_or_default();
            objects.upload(&key, &folder.join(name)).await?;
        }
        Ok(())
    }

    /// Removes the folder of an adapter without a row, unless its row may be about to be added again.
    pub async fn remove_adapter(&self, version: &str) -> Result<()> {
        let (data_dir, name) = (Arc::clone(&self.data_dir), version.to_string());
        blocking("removing an adapter", move || data_dir.remove_adapter(&name)).await?;
        match &self.objects {
            Some(objects) => {
                self.delete_blob(objects, BlobKind::Adapter, version, &adapter_keys(version)).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// Removes all cached features of this data directory, except those that are being written.
    pub async fn clear_feature_cache(&self) -> Result<()> {
        let data_dir = Arc::clone(&self.data_dir);
        blocking("clearing the feature cache", move || data_dir.clear_feature_cache()).await
    }

    /// Moves a blob of the data directory away whose content is not what its name says, so that the next access downloads it. Returns
    /// false without object storage: then there is no other copy.
    pub async fn quarantine(&self, kind: BlobKind, name: &str) -> Result<bool> {
        if self.objects.is_none() {
            return Ok(false);
        }
        tracing::warn!(kind = kind.as_str(), name, "a blob in the data folder is damaged; it is downloaded again");
        let (data_dir, name) = (Arc::clone(&self.data_dir), name.to_string());
        blocking("removing a damaged blob", move || data_dir.remove_damaged(kind, &name)).await?;
        Ok(true)
    }

    /// Deletes the objects of a blob, unless a row refers to it or it is reserved. Returns whether they are deleted.
    pub(super) async fn delete_blob(
        &self,
        objects: &ObjectStorage,
        kind: BlobKind,
        name: &str,
        keys: &[String],
    ) -> Result<bool> {
        if !self.store.begin_blob_deletion(kind, name, DELETION_TIMEOUT).await? {
            return Ok(false);
        }
        // In reverse order: the last key says that the others are there.
        for key in keys.iter().rev() {
            objects.delete(key).await?;
        }
        self.store.finish_blob_deletion(kind, name).await?;
        Ok(true)
    }

    /// Reserves a blob. Waits while it is being deleted.
    async fn reserve(&self, kind: BlobKind, name: &str) -> Result<Reservation> {
        loop {
            if let Some(id) = self.store.reserve_blob(kind, name, RESERVATION).await? {
                return Ok(Reservation(Some((Arc::clone(&self.store), id))));
            }
            tokio::time::sleep(RESERVATION_DELAY).await;
        }
    }

    /// Keeps the data directory within its limit.
    async fn evict(&self) -> Result<()> {
        let (data_dir, limit) = (Arc::clone(&self.data_dir), self.cache_bytes);
        blocking("evicting blobs", move || data_dir.evict(limit)).await
    }
}

/// Runs a function of the file system on a thread where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    function: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(function).await.context(operation)?
}

/// Files of an adapter; `None` unless all are there.
async fn get_adapter(objects: &ObjectStorage, version: &str) -> Result<Option<AdapterFiles>> {
    let [config, weights, manifest] = adapter_keys(version);
    let files = tokio::try_join!(objects.get(&config), objects.get(&weights), objects.get(&manifest))?;
    let (Some(config), Some(weights), Some(manifest)) = files else { return Ok(None) };
    Ok(Some(AdapterFiles { config, weights, manifest }))
}

pub(super) fn dataset_key(hash: &str) -> String {
    format!("datasets/{hash}")
}

/// Keys of the files of an adapter: configuration, weights, manifest.
pub(super) fn adapter_keys(version: &str) -> [String; 3] {
    AdapterFiles::NAMES.map(|name| format!("adapters/{version}/{name}"))
}
