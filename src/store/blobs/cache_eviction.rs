//! Eviction from a data directory that is a cache of object storage.

use super::data_dir::DataDir;
use super::garbage_collection::{entry_names, file_bytes};
use super::gc_pins::is_younger_than;
use super::layout::{self, is_sha256_hex};
use espalier_core::durable_fs;
use espalier_core::error::{Context, Result};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{fs, io};

/// A blob stays this long after its last use: the reader that got its path opens it within that time.
const MIN_IDLE_TIME: Duration = Duration::from_secs(60);

struct CachedBlob {
    path: PathBuf,
    bytes: u64,
    used_at: SystemTime,
}

impl DataDir {
    /// Removes the least recently used datasets and adapters until the others have at most `limit` bytes. Blobs that were used within the
    /// last minute stay.
    pub(super) fn evict(&self, limit: u64) -> Result<()> {
        let evict = || -> io::Result<()> {
            let mut blobs = self.cached_blobs()?;
            let mut bytes: u64 = blobs.iter().map(|blob| blob.bytes).sum();
            if bytes <= limit {
                return Ok(());
            }
            let _guard = self.gc_pins.lock()?;
            if self.gc_pins.is_backup_running()? {
                return Ok(());
            }
            blobs.sort_unstable_by_key(|blob| blob.used_at);
            for blob in blobs {
                if bytes <= limit || is_younger_than(&blob.path, MIN_IDLE_TIME) {
                    break;
                }
                match blob.path.is_dir() {
                    true => layout::remove_dir_atomically(&blob.path, &self.temp_dir())?,
                    false => durable_fs::remove_file_if_exists(&blob.path)?,
                }
                bytes -= blob.bytes;
                tracing::debug!(blob = %blob.path.display(), bytes = blob.bytes, "blob evicted");
            }
            Ok(())
        };
        evict().context("evicting blobs from the data folder")
    }

    fn cached_blobs(&self) -> io::Result<Vec<CachedBlob>> {
        let mut blobs = Vec::new();
        for dir in [self.datasets_dir(), self.adapters_dir()] {
            for name in entry_names(&dir)?.into_iter().filter(|name| is_sha256_hex(name)) {
                let path = dir.join(name);
                // What another process removes meanwhile is not there.
                let Ok(used_at) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
                blobs.push(CachedBlob { bytes: file_bytes(&path), path, used_at });
            }
        }
        Ok(blobs)
    }
}
