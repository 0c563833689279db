//! Copies of blobs from object storage, for backups.

use super::blob_store::{adapter_keys, dataset_key};
use super::checkpoint_objects::newest_checkpoint;
use super::object_storage::{Download, ObjectStorage};
use espalier_core::error::{Context, Result};
use std::path::Path;
use uuid::Uuid;

impl ObjectStorage {
    /// Writes a dataset to a new file. There is no file if there is no object.
    pub async fn copy_dataset(&self, hash: &str, target: &Path) -> Result<()> {
        self.download(&dataset_key(hash), target).await.map(drop)
    }

    /// Writes the files of an adapter to a new folder. A file without an object is left out.
    pub async fn copy_adapter(&self, version: &str, target: &Path) -> Result<()> {
        tokio::fs::create_dir_all(target).await.with_context(|| format!("creating {}", target.display()))?;
        for key in adapter_keys(version) {
            self.download(&key, &target.join(key.rsplit('/').next().unwrap_or_default())).await?;
        }
        Ok(())
    }

    /// Unpacks the newest checkpoint of a job into a new folder, if there is one.
    pub async fn copy_checkpoint(&self, job: Uuid, target: &Path) -> Result<()> {
        let Some(key) = newest_checkpoint(self, job).await? else { return Ok(()) };
        let archive = target.with_extension("tar");
        if self.download(&key, &archive).await? == Download::Missing {
            return Ok(());
        }
        let unpack = || {
            tar::Archive::new(std::fs::File::open(&archive)?).unpack(target)?;
            std::fs::remove_file(&archive)
        };
        unpack().with_context(|| format!("unpacking the checkpoint of the job {job}"))
    }
}
