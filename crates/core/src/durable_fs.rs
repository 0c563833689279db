//! File operations that survive a crash: fsync before rename, and fsync of the folder after it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use uuid::Uuid;

/// Writes a new file and syncs it. The name is durable after [`sync_dir`] on the folder.
pub fn write_file_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Syncs a folder: makes creations and renames in it durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes or replaces a file such that it has either the old content or the new one after a crash. Writes a temporary file in the
/// same folder, syncs it, renames it and syncs the folder.
pub fn write_atomically(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp_path = dir.join(format!(".tmp-{}", Uuid::now_v7()));
    let result = write_file_synced(&temp_path, bytes).and_then(|()| fs::rename(&temp_path, dir.join(name)));
    if result.is_err() {
        // The error of the write is the one to report; the temporary file may not exist.
        let _ = fs::remove_file(&temp_path);
    }
    result?;
    sync_dir(dir)
}

/// Removes a file; a missing one is not an error.
pub fn remove_file_if_exists(path: &Path) -> io::Result<()> {
    ignore_not_found(fs::remove_file(path))
}

pub fn ignore_not_found(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_the_file_and_leaves_no_other() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["one", "two"] {
            write_atomically(folder.path(), "file.json", content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("file.json")).unwrap(), content);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn synced_write_does_not_replace_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_file_synced(&path, b"one").unwrap();
        assert_eq!(write_file_synced(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }
}
