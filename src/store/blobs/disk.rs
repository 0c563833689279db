//! File operations that survive a crash half way. Knows no layout.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use uuid::Uuid;

/// Makes the names in a folder as durable as the files behind them.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file that is there whole or not at all. Two processes may do it at once with the same content.
pub fn write_new(file: &Path, content: &[u8]) -> io::Result<()> {
    let half = file.with_extension(Uuid::now_v7().to_string());
    let mut writing = File::create_new(&half)?;
    writing.write_all(content)?;
    writing.sync_all()?;
    fs::rename(&half, file)
}

/// One that is gone already is fine.
pub fn remove_file(file: &Path) -> io::Result<()> {
    gone_is_fine(fs::remove_file(file))
}

/// Takes the folder out of sight first, so that nobody finds it with half of its files.
pub fn remove_folder(folder: &Path, temporary: &Path) -> io::Result<()> {
    let aside = temporary.join(Uuid::now_v7().to_string());
    gone_is_fine(fs::rename(folder, &aside))?;
    gone_is_fine(fs::remove_dir_all(&aside))
}

pub fn gone_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
