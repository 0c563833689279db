//! Instances: each process that uses a data folder holds one by flock, which ends with the process however it ends.
//!
//! Knows nothing of leases; `DataFolder::abandoned` says whose are to be taken back.

use super::durable_fs;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// An instance whose lock this process holds, as long as this lives.
#[derive(Debug)]
pub struct Instance {
    pub id: Uuid,
    path: PathBuf,
    lock: File,
}

/// The instances that nobody held.
#[derive(Debug)]
pub struct UnlockedInstances {
    pub own: Instance,
    pub stale: Vec<Instance>,
}

/// Locks all instances that nobody holds; the oldest becomes this process's own. Where there is none, it makes one.
pub fn lock_unused(instances_dir: &Path) -> io::Result<UnlockedInstances> {
    let mut unlocked = Vec::new();
    for id in instance_ids(instances_dir)? {
        unlocked.extend(Instance::try_lock(instances_dir, id)?);
    }
    let mut unheld = unlocked.into_iter();
    let own = match unheld.next() {
        Some(oldest) => oldest,
        None => Instance::create(instances_dir)?,
    };
    Ok(UnlockedInstances { own, stale: unheld.collect() })
}

impl UnlockedInstances {
    /// The others end here: their files go while they are still locked, so that nobody can take one over before its
    /// leases are taken back.
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
            // another process that starts just now may have locked it first, and then it is its to remove
            if let Some(instance) = Self::try_lock(instances_dir, id)? {
                return Ok(instance);
            }
        }
    }

    /// `None` where another process holds it, or has just removed it.
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

    /// A lock on a file that was removed meanwhile keeps nobody out.
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

/// Empties the temporary folders of processes that are dead: those of unheld instances, and those whose instance is
/// gone.
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

/// Oldest first: an id begins with the time it was made.
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
