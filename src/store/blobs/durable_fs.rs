//! File operations that survive a crash half way. Knows no layout.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use uuid::Uuid;

/// Makes the names in a folder as durable as the files behind them.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a file that is there whole or not at all. Two processes may do it at once with the same content.
pub fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temp_path = path.with_extension(Uuid::now_v7().to_string());
    let mut temp_file = File::create_new(&temp_path)?;
    temp_file.write_all(contents)?;
    temp_file.sync_all()?;
    fs::rename(&temp_path, path)
}

/// One that is gone already is fine.
pub fn remove_file_if_exists(path: &Path) -> io::Result<()> {
    ignore_not_found(fs::remove_file(path))
}

/// Takes the folder out of sight first, so that nobody finds it with half of its files.
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
