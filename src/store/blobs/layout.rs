//! Format version, subdirectories and blob names of the data directory, and removal of files that other processes may remove too.

use espalier_core::durable_fs;
use espalier_core::error::{Error, Result};
use std::path::Path;
use std::{fs, io};
use uuid::Uuid;

/// Layout version that this program writes, and the only one it reads.
const FORMAT_VERSION: u32 = 1;

pub const SUBDIRECTORIES: [&str; 7] =
    ["instances", "datasets", "adapters", "checkpoints", "feature-cache", "temporary", "pins"];

/// Checks the format version, and writes it into an empty directory.
///
/// # Errors
/// `Invalid` for a directory with another layout. Garbage collection would delete its files.
pub fn check_format(root: &Path) -> Result<()> {
    let file = root.join("format");
    match file.exists() {
        true => existing_format(root),
        false => init_format(root, &file),
    }
}

/// Checks the format version of a data directory that exists.
///
/// # Errors
/// `Invalid` for a directory with another layout, or without one.
pub fn existing_format(root: &Path) -> Result<()> {
    let format = match fs::read_to_string(root.join("format")) {
        Ok(format) => format,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(not_a_data_dir(root, "it has no file \"format\""));
        }
        Err(error) => return Err(unusable_data_dir(root, &error)),
    };
    match format.trim().parse::<u32>() {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(found) => {
            let detail = format!(
                "the data folder {} has format {found}, and this espalier knows {FORMAT_VERSION}: start the version that made it, \
                 or give another folder",
                root.display()
            );
            Err(Error::invalid("data_folder_too_new", detail))
        }
        Err(_) => Err(not_a_data_dir(root, "its file \"format\" is not ours")),
    }
}

fn init_format(root: &Path, file: &Path) -> Result<()> {
    for name in SUBDIRECTORIES {
        if root.join(name).exists() {
            // Another process that starts at the same time writes the format before it creates the subdirectories.
            if file.exists() {
                return check_format(root);
            }
            return Err(not_a_data_dir(root, &format!("it has \"{name}\" but no file \"format\"")));
        }
    }
    durable_fs::write_atomically(root, "format", format!("{FORMAT_VERSION}\n").as_bytes())
        .map_err(|error| unusable_data_dir(root, &error))
}

fn not_a_data_dir(root: &Path, reason: &str) -> Error {
    let detail = format!(
        "{} is not a data folder of espalier ({reason}): give an empty folder, or one that espalier has made",
        root.display()
    );
    Error::invalid("data_folder_unknown", detail)
}

pub fn unusable_data_dir(root: &Path, error: &io::Error) -> Error {
    let detail = format!(
        "cannot use {} as the data folder: {error}; give a folder on a local disk that espalier may write to",
        root.display()
    );
    Error::invalid("data_folder_unusable", detail)
}

/// Rejects a blob name that is not a sha256, so that a name cannot lead out of its directory.
pub fn check_blob_name(name: &str) -> Result<()> {
    match is_sha256_hex(name) {
        true => Ok(()),
        false => Err(Error::internal(format!("\"{name}\" is not a sha256 in lower case"))),
    }
}

pub fn is_sha256_hex(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Moves a directory into `temp_dir` and deletes it there, so that no process sees it without some of its files.
pub fn remove_dir_atomically(dir: &Path, temp_dir: &Path) -> io::Result<()> {
    let removal_path = temp_dir.join(Uuid::now_v7().to_string());
    durable_fs::ignore_not_found(fs::rename(dir, &removal_path))?;
    durable_fs::ignore_not_found(fs::remove_dir_all(&removal_path))
}
