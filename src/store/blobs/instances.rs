//! Instances: each process that uses a data folder holds one by flock, which ends with the process however it ends.
//!
//! Knows nothing of leases; `DataFolder::abandoned` says whose are to be taken back.

use super::disk;
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
pub struct Unheld {
    pub own: Instance,
    pub others: Vec<Instance>,
}

/// Locks all instances that nobody holds; the oldest becomes this process's own. Where there is none, it makes one.
pub fn take(folder: &Path) -> io::Result<Unheld> {
    let mut unheld = Vec::new();
    for id in ids(folder)? {
        unheld.extend(Instance::lock(folder, id)?);
    }
    let mut unheld = unheld.into_iter();
    let own = match unheld.next() {
        Some(oldest) => oldest,
        None => Instance::create(folder)?,
    };
    Ok(Unheld { own, others: unheld.collect() })
}

impl Unheld {
    /// The others end here: their files go while they are still locked, so that nobody can take one over before its
    /// leases are taken back.
    pub fn forget_others(self) -> io::Result<(Instance, Vec<Uuid>)> {
        let mut abandoned = vec![self.own.id];
        for other in self.others {
            disk::remove_file(&other.path)?;
            abandoned.push(other.id);
        }
        Ok((self.own, abandoned))
    }
}

impl Instance {
    fn create(folder: &Path) -> io::Result<Self> {
        loop {
            let id = Uuid::now_v7();
            File::create_new(lock_file(folder, id))?;
            // another process that starts just now may have locked it first, and then it is its to remove
            if let Some(instance) = Self::lock(folder, id)? {
                return Ok(instance);
            }
        }
    }

    /// `None` where another process holds it, or has just removed it.
    fn lock(folder: &Path, id: Uuid) -> io::Result<Option<Self>> {
        let path = lock_file(folder, id);
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
        Ok(instance.is_on_disk()?.then_some(instance))
    }

    /// A lock on a file that was removed meanwhile keeps nobody out.
    fn is_on_disk(&self) -> io::Result<bool> {
        let held = self.lock.metadata()?;
        match self.path.metadata() {
            Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Empties the temporary folders of processes that are dead: those of unheld instances, and those whose instance is
/// gone.
pub fn clear_temporary(temporary: &Path, instances: &Path, unheld: &Unheld) -> io::Result<()> {
    for entry in fs::read_dir(temporary)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| Uuid::parse_str(name).ok()) else { continue };
        let ours = unheld.own.id == id || unheld.others.iter().any(|other| other.id == id);
        if ours || !lock_file(instances, id).exists() {
            disk::gone_is_fine(fs::remove_dir_all(entry.path()))?;
        }
    }
    Ok(())
}

/// Oldest first: an id begins with the time it was made.
fn ids(folder: &Path) -> io::Result<Vec<Uuid>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".lock")).and_then(|id| Uuid::parse_str(id).ok());
        ids.extend(id);
    }
    ids.sort_unstable();
    Ok(ids)
}

fn lock_file(folder: &Path, id: Uuid) -> PathBuf {
    folder.join(format!("{id}.lock"))
}
