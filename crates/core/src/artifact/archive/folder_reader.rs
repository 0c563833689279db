//! Copies an adapter from a folder.

use super::{ImportLimits, check_entry_count, invalid_archive, select_files, write_file};
use crate::error::{Context, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

const FOLDER: &str = "folder";

/// Copies the files of the adapter in `folder`, without its subfolders, to `target_dir`. Links that leave `root` are rejected.
///
/// # Errors
/// As [`super::unpack`].
pub fn copy_folder(folder: &Path, root: &Path, target_dir: &Path, limits: &ImportLimits) -> Result<()> {
    let root = root.canonicalize().context("finding the folder of imports")?;
    let mut names = BTreeSet::new();
    for (count, entry) in fs::read_dir(folder).context("listing an adapter's folder")?.enumerate() {
        check_entry_count(count + 1, FOLDER, limits)?;
        let name = entry.context("listing an adapter's folder")?.file_name();
        names.extend(name.into_string().ok());
    }
    for file in select_files(&names, FOLDER, limits)? {
        let unreadable = |error| invalid_archive(FOLDER, format!("{} cannot be read ({error})", file.path));
        let path = folder.join(&file.path).canonicalize().map_err(unreadable)?;
        if !path.starts_with(&root) {
            let reason = format!("{} is a link to a place outside of the folder of imports", file.path);
            return Err(invalid_archive(FOLDER, reason));
        }
        write_file(File::open(path).map_err(unreadable)?, &file, FOLDER, target_dir)?;
    }
    Ok(())
}
