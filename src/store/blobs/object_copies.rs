//! Copies of datasets and adapters from object storage, for backups.

use super::blob_store::{adapter_keys, dataset_key};
use super::object_storage::ObjectStorage;
use espalier_core::error::{Context, Result};
use std::path::Path;

impl ObjectStorage {
    /// Downloads a dataset into a new file. Makes no file if object storage does not have it.
    pub async fn copy_dataset(&self, hash: &str, target: &Path) -> Result<()> {
        self.download(&dataset_key(hash), target).await.map(drop)
    }

    /// Downloads the files of an adapter into a new folder, except those that object storage does not have.
    pub async fn copy_adapter(&self, version: &str, target: &Path) -> Result<()> {
        tokio::fs::create_dir_all(target).await.with_context(|| format!("creating {}", target.display()))?;
        for key in adapter_keys(version) {
            self.download(&key, &target.join(key.rsplit('/').next().unwrap_or_default())).await?;
        }
        Ok(())
    }
}
