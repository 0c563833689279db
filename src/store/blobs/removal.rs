//! Removal of files and directories that other processes may remove too.

use std::fs;
use std::io;
use std::path::Path;
use uuid::Uuid;

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
