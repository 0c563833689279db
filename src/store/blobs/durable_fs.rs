//! File operations that are atomic and durable across a crash.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use uuid::Uuid;

/// Syncs the entries of a directory to the disk.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a complete file or none. Two processes may write the same content at the same time.
pub fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temp_path = path.with_extension(Uuid::now_v7().to_string());
    let mut temp_file = File::create_new(&temp_path)?;
    temp_file.write_all(contents)?;
    temp_file.sync_all()?;
    fs::rename(&temp_path, path)
}

/// Removes a file; a missing one is not an error.
pub fn remove_file_if_exists(path: &Path) -> io::Result<()> {
    ignore_not_found(fs::remove_file(path))
}

/// Moves a directory into `temp_dir` and deletes it there, so that no process sees it without some of its files.
pub fn remove_dir_atomically(dir: &Path, temp_dir: &Path) -> io::Result<()> {
    let removal_path = temp_dir.join(Uuid::now_v7().to_string());
    ignore_not_found(fs::rename(dir, &removal_path))?;
    ignore_not_found(fs::remove_dir_all(&removal_path))
}

pub fn ignore_not_found(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
