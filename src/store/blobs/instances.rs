//! Instances: each process that uses a data directory locks one with flock. The lock ends with the process, even after a
//! crash.

use espalier_core::durable_fs;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Instance that this process has locked. Dropping it releases the lock.
#[derive(Debug)]
pub struct Instance {
    pub id: Uuid,
    path: PathBuf,
    lock: File,
}

/// Instances that no other process had locked. This process has locked all of them.
#[derive(Debug)]
pub struct UnlockedInstances {
    pub own: Instance,
    pub stale: Vec<Instance>,
}

/// Locks all unlocked instances. The oldest becomes this process's own; if there is none, a new one is created.
pub fn lock_unused(instances_dir: &Path) -> io::Result<UnlockedInstances> {
    let mut unlocked = Vec::new();
    for id in instance_ids(instances_dir)? {
        unlocked.extend(Instance::try_lock(instances_dir, id)?);
    }
    let mut unlocked = unlocked.into_iter();
    let own = match unlocked.next() {
        Some(oldest) => oldest,
        None => Instance::create(instances_dir)?,
    };
    Ok(UnlockedInstances { own, stale: unlocked.collect() })
}

impl UnlockedInstances {
    /// Removes the lock files of the stale instances. This process holds their locks meanwhile, so no other process takes
    /// an instance over before its leases have expired. Returns the own instance and the ids of all, including the own.
    pub fn remove_stale(self) -> io::Result<(Instance, Vec<Uuid>)> {
        let mut stale_ids = vec![self.own.id];
        for other in self.stale {
            durable_fs::remove_file_if_exists(&other.path)?;
            stale_ids.push(other.id);
        }
        Ok((self.own, stale_ids))
    }
}

impl Instance {
    fn create(instances_dir: &Path) -> io::Result<Self> {
        loop {
            let id = Uuid::now_v7();
            File::create_new(lock_path(instances_dir, id))?;
            // Another process may have locked the new file first, and then removes it.
            if let Some(instance) = Self::try_lock(instances_dir, id)? {
                return Ok(instance);
            }
        }
    }

    /// Returns `None` if another process has locked or removed the instance.
    fn try_lock(instances_dir: &Path, id: Uuid) -> io::Result<Option<Self>> {
        let path = lock_path(instances_dir, id);
        let lock = match File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let instance = Self { id, path, lock };
        Ok(instance.owns_lock_file()?.then_some(instance))
    }

    /// Checks that the locked file still exists under its path: a lock on a removed file excludes nobody.
    fn owns_lock_file(&self) -> io::Result<bool> {
        let locked_metadata = self.lock.metadata()?;
        match self.path.metadata() {
            Ok(path_metadata) => {
                Ok((path_metadata.dev(), path_metadata.ino()) == (locked_metadata.dev(), locked_metadata.ino()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Removes the temporary directories of ended processes: those of unlocked instances, and those without an instance.
pub fn remove_stale_temp_dirs(temp_root: &Path, instances_dir: &Path, unlocked: &UnlockedInstances) -> io::Result<()> {
    for entry in fs::read_dir(temp_root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| Uuid::parse_str(name).ok()) else { continue };
        let is_unlocked = unlocked.own.id == id || unlocked.stale.iter().any(|other| other.id == id);
        if is_unlocked || !lock_path(instances_dir, id).exists() {
            durable_fs::ignore_not_found(fs::remove_dir_all(entry.path()))?;
        }
    }
    Ok(())
}

/// Whether there is an instance besides `own`. Those whose processes have ended are removed when a process opens the directory.
pub fn has_others(instances_dir: &Path, own: Uuid) -> io::Result<bool> {
    Ok(instance_ids(instances_dir)?.iter().any(|id| *id != own))
}

/// Ids of all instances, oldest first: a UUID of version 7 begins with its creation time.
fn instance_ids(instances_dir: &Path) -> io::Result<Vec<Uuid>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(instances_dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".lock")).and_then(|id| Uuid::parse_str(id).ok());
        ids.extend(id);
    }
    ids.sort_unstable();
    Ok(ids)
}

fn lock_path(instances_dir: &Path, id: Uuid) -> PathBuf {
    instances_dir.join(format!("{id}.lock"))
}
