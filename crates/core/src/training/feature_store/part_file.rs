//! Unfinished feature file. It stays on disk when the process ends, so that the next attempt computes only what is missing.
//!
//! Behind the content there is a journal with an entry per written example: its index and the sha256 of its bytes. An entry counts where
//! the bytes have this hash, so whatever a crash leaves of either is safe to read. The writer holds a lock on the file.

use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const PREFIX: &str = ".part-";

/// Index of an example, and the sha256 of its bytes.
const ENTRY_BYTES: usize = size_of::<u64>() + 32;

/// File that this process writes.
pub struct PartFile {
    file: File,
    path: PathBuf,
    /// Offset of the journal.
    content_bytes: u64,
    /// Number of entries of the journal.
    entries: u64,
}

impl PartFile {
    /// Opens the file that an interrupted attempt has left for `key`, or creates one. While another process or job writes that file,
    /// this is a file of its own.
    pub fn open(folder: &Path, key: &str, content_bytes: u64) -> io::Result<Self> {
        let path = folder.join(format!("{PREFIX}{key}"));
        let (file, path) = match open_locked(&path)? {
            Some(file) => (file, path),
            None => {
                let path = folder.join(format!("{PREFIX}{}", Uuid::now_v7()));
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
                // Nobody waits for a lock on a new name. Without one, on a file system that has none, the file is never evicted.
                let _ = file.try_lock();
                (file, path)
            }
        };
        let entries = file.metadata()?.len().saturating_sub(content_bytes) / ENTRY_BYTES as u64;
        Ok(Self { file, path, content_bytes, entries })
    }

    /// Writes the bytes of an example, and its entry in the journal.
    pub fn write(&mut self, example: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        let mut entry = [0; ENTRY_BYTES];
        entry[..size_of::<u64>()].copy_from_slice(&(example as u64).to_le_bytes());
        entry[size_of::<u64>()..].copy_from_slice(&Sha256::digest(bytes));
        self.file.write_all_at(&entry, self.content_bytes + self.entries * ENTRY_BYTES as u64)?;
        self.entries += 1;
        Ok(())
    }

    /// Examples of the journal whose bytes are those that were written. `byte_range` gives the range of an example, `None` for an index
    /// beyond the last.
    pub fn verified_examples(&self, byte_range: impl Fn(u64) -> Option<Range<u64>>) -> io::Result<Vec<usize>> {
        let mut journal = vec![0; self.entries as usize * ENTRY_BYTES];
        self.file.read_exact_at(&mut journal, self.content_bytes)?;
        let mut examples = Vec::new();
        for entry in journal.as_chunks::<ENTRY_BYTES>().0 {
            let (index, hash) = entry.split_at(size_of::<u64>());
            let index = u64::from_le_bytes(index.try_into().map_err(io::Error::other)?);
            let Some(range) = byte_range(index) else { continue };
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.file.read_exact_at(&mut bytes, range.start)?;
            if hash == Sha256::digest(&bytes).as_slice() {
                examples.push(index as usize);
            }
        }
        Ok(examples)
    }

    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// Removes the journal and renames the file.
    pub fn finish(self, path: &Path) -> io::Result<File> {
        self.file.set_len(self.content_bytes)?;
        fs::rename(&self.path, path)?;
        Ok(self.file)
    }

    /// Removes the file.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Whether a file of the folder is unfinished, by its name.
pub fn is_part_file(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Whether a process writes this unfinished file, or cannot tell by a lock.
pub fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_err())
}

/// Opens or creates a file and locks it; `None` where another has locked it, or renamed it since it was opened, or where the file system
/// has no locks.
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if file.try_lock().is_err() {
        return Ok(None);
    }
    let (opened, named) = (file.metadata()?, fs::metadata(path));
    let is_same = named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()));
    Ok(is_same.then_some(file))
}
