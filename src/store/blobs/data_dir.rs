//! [`DataDir`]: opens the data directory, and writes and removes its blobs.

use super::gc_pins::GcPins;
use super::instances::{self, Instance};
use super::layout::{self, SUBDIRECTORIES, check_blob_name, check_format, unusable_data_dir};
use crate::store::model::BlobKind;
use espalier_core::artifact::{AdapterFiles, PriorFolder, PublishedAdapter, publish_files};
use espalier_core::durable_fs;
use espalier_core::error::{Context, Result};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Time within which the row of a blob that was written again must be added. Until then the blob is not removed.
const GC_PIN_TTL: Duration = Duration::from_secs(3600);

/// Data directory of this process. Dropping it, or the end of the process, releases its instance.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    instance: Instance,
    stale_instances: Vec<Uuid>,
    pub(super) gc_pins: GcPins,
}

/// Space of the file system of a data directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    pub free_bytes: u64,
    pub size_bytes: u64,
}

impl DataDir {
    /// Creates the directory if it is missing, and locks an instance in it: the oldest unlocked one, or a new one.
    ///
    /// # Errors
    /// `Invalid` if the directory is not writable, has a newer format, or belongs to another program.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| unusable_data_dir(path, &error))?;
        check_format(path)?;
        Self::acquire(path).map_err(|error| unusable_data_dir(path, &error))
    }

    fn acquire(path: &Path) -> io::Result<Self> {
        // An absolute path stays valid when the working directory changes.
        let root = path.canonicalize()?;
        for subdirectory in SUBDIRECTORIES {
            fs::create_dir_all(root.join(subdirectory))?;
        }
        let unlocked = instances::lock_unused(&root.join("instances"))?;
        let temp_root = root.join("temporary");
        instances::remove_stale_temp_dirs(&temp_root, &root.join("instances"), &unlocked)?;
        fs::create_dir_all(temp_root.join(unlocked.own.id.to_string()))?;
        durable_fs::sync_dir(&root)?;
        let gc_pins = GcPins::new(root.join("pins"));
        let (instance, stale_instances) = unlocked.remove_stale()?;
        Ok(Self { root, instance, stale_instances, gc_pins })
    }

    /// Instance under which this process claims jobs.
    pub fn instance_id(&self) -> Uuid {
        self.instance.id
    }

    /// Instances that no process had locked when this one was opened, including its own. Their processes have ended, so
    /// their leases can expire at once.
    pub fn stale_instances(&self) -> &[Uuid] {
        &self.stale_instances
    }

    /// `None` if the file system does not say.
    pub fn disk_space(&self) -> Option<DiskSpace> {
        let filesystem = rustix::fs::statvfs(&self.root).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(filesystem.f_frsize);
        Some(DiskSpace { free_bytes: bytes(filesystem.f_bavail), size_bytes: bytes(filesystem.f_blocks) })
    }

    pub(super) fn datasets_dir(&self) -> PathBuf {
        self.root.join("datasets")
    }

    pub fn dataset_path(&self, hash: &str) -> PathBuf {
        self.datasets_dir().join(hash)
    }

    /// Directory with one subdirectory for each adapter version.
    pub fn adapters_dir(&self) -> PathBuf {
        self.root.join("adapters")
    }

    pub(super) fn checkpoints_dir(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    pub fn job_checkpoint_dir(&self, job: Uuid) -> PathBuf {
        self.checkpoints_dir().join(job.to_string())
    }

    pub fn feature_cache_dir(&self) -> PathBuf {
        self.root.join("feature-cache")
    }

    /// Directory for files that are still being written, on the same file system as the blobs. It is empty at start.
    pub fn temp_dir(&self) -> PathBuf {
        self.root.join("temporary").join(self.instance.id.to_string())
    }

    /// Moves a complete file, whose sha256 is `hash`, to its path and syncs it. An existing file has the same content and
    /// is replaced.
    pub fn put_dataset(&self, temp_file: &Path, hash: &str) -> Result<PathBuf> {
        check_blob_name(hash)?;
        let target = self.dataset_path(hash);
        self.move_dataset(temp_file, hash, &target).with_context(|| format!("keeping the dataset {hash}"))?;
        Ok(target)
    }

    fn move_dataset(&self, temp_file: &Path, hash: &str, target: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(temp_file)?;
        file.set_modified(SystemTime::now())?;
        file.sync_all()?;
        let _guard = self.gc_pins.lock()?;
        if target.exists() {
            self.gc_pins.pin(hash)?;
        }
        fs::rename(temp_file, target)?;
        durable_fs::sync_dir(&self.datasets_dir())
    }

    /// Removes the file of a dataset without a row. A file that was written again within the last hour stays until
    /// garbage collection, because its new row may not be added yet; so does every file while a backup runs.
    pub fn remove_dataset(&self, hash: &str) -> Result<()> {
        check_blob_name(hash)?;
        let Some(_guard) = self.lock_for_removal(hash)? else { return Ok(()) };
        durable_fs::remove_file_if_exists(&self.dataset_path(hash))
            .with_context(|| format!("removing the dataset {hash}"))
    }

    /// Writes an adapter folder and protects it from removal until its row is added. `write` gets the directory of all
    /// adapters and a temporary directory.
    pub fn put_adapter(&self, write: impl Fn(&Path, &Path) -> Result<PublishedAdapter>) -> Result<PublishedAdapter> {
        loop {
            let published = write(&self.adapters_dir(), &self.temp_dir())?;
            // No row refers to a new folder, so nobody removes it. A pinned folder is not removed either: the second
            // iteration is the last.
            if published.prior_folder == PriorFolder::Absent || self.pin_adapter(&published.version)? {
                return Ok(published);
            }
        }
    }

    /// Protects an adapter folder from removal for an hour. Call it after the folder is written and before its row is
    /// added: the row of an equal adapter may be deleted in between. Returns false if the folder has been removed and must
    /// be written again.
    #[must_use = "if it returns false, the folder has to be written again"]
    pub fn pin_adapter(&self, version: &str) -> Result<bool> {
        check_blob_name(version)?;
        let _guard = self.gc_pins.lock().context("locking the data folder")?;
        self.gc_pins.pin(version).with_context(|| format!("pinning the adapter {version}"))?;
        Ok(self.adapters_dir().join(version).exists())
    }

    /// Keeps the verified files of a downloaded adapter.
    pub(super) fn put_adapter_files(&self, files: &AdapterFiles) -> Result<()> {
        publish_files(files, &self.adapters_dir(), &self.temp_dir()).map(drop)
    }

    /// Sets the time of a blob's last use, by which blobs are evicted. Returns whether the blob is there.
    pub(super) fn touch(&self, blob: &Path) -> bool {
        File::open(blob).and_then(|file| file.set_modified(SystemTime::now())).is_ok()
    }

    /// Removes a damaged blob, whether it is in use or not.
    pub(super) fn remove_damaged(&self, kind: BlobKind, name: &str) -> Result<()> {
        check_blob_name(name)?;
        let removed = match kind {
            BlobKind::Dataset => durable_fs::remove_file_if_exists(&self.dataset_path(name)),
            BlobKind::Adapter => layout::remove_dir_atomically(&self.adapters_dir().join(name), &self.temp_dir()),
        };
        removed.with_context(|| format!("removing the damaged blob {name}"))
    }

    /// Removes the folder of an adapter without a row. It stays until garbage collection if it is pinned, or while a backup runs.
    pub fn remove_adapter(&self, version: &str) -> Result<()> {
        check_blob_name(version)?;
        let Some(_guard) = self.lock_for_removal(version)? else { return Ok(()) };
        layout::remove_dir_atomically(&self.adapters_dir().join(version), &self.temp_dir())
            .with_context(|| format!("removing the adapter {version}"))
    }

    /// Removes the checkpoints of a finished job. While a backup runs they stay until garbage collection.
    pub fn remove_checkpoints(&self, job: Uuid) -> Result<()> {
        let _guard = self.gc_pins.lock().context("locking the data folder")?;
        if self.gc_pins.is_backup_running().context("looking for backups of the data folder")? {
            return Ok(());
        }
        layout::remove_dir_atomically(&self.job_checkpoint_dir(job), &self.temp_dir())
            .with_context(|| format!("removing the checkpoints of the job {job}"))
    }

    /// Removes all cached features, except those that are being written.
    pub fn clear_feature_cache(&self) -> Result<()> {
        let clear = || -> io::Result<()> {
            for entry in fs::read_dir(self.feature_cache_dir())? {
                let path = entry?.path();
                // A job holds a lock on the file that it writes, and a finished file stays readable for those that have it open.
                match File::open(&path).map(|file| file.try_lock()) {
                    Ok(Err(TryLockError::WouldBlock)) => {}
                    _ => durable_fs::remove_file_if_exists(&path)?,
                }
            }
            Ok(())
        };
        clear().context("clearing the feature cache")
    }

    /// Whether another process uses this directory.
    pub fn has_other_users(&self) -> Result<bool> {
        let others = instances::has_others(&self.root.join("instances"), self.instance.id);
        others.context("listing the processes that use the data folder")
    }

    /// Locks out every process that writes or removes a blob. `None` if this blob may not be removed now.
    fn lock_for_removal(&self, blob: &str) -> Result<Option<File>> {
        let guard = self.gc_pins.lock().context("locking the data folder")?;
        let is_backup_running = self.gc_pins.is_backup_running().context("looking for backups of the data folder")?;
        let is_kept = is_backup_running || self.gc_pins.is_pinned(blob, GC_PIN_TTL);
        Ok((!is_kept).then_some(guard))
    }
}
