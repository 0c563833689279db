//! Extracts an adapter from a zip.

use super::{EntryKind, ImportLimits, check_entry_count, check_entry_path, invalid_archive, select_files, write_file};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use zip::ZipArchive;
use zip::read::ZipFileEntry;

const ZIP: &str = "zip";

/// Index of every file in the zip, by its path.
type EntryIndex = BTreeMap<String, usize>;

pub(super) fn unpack(file: File, target_dir: &Path, limits: &ImportLimits) -> Result<()> {
    let mut archive = ZipArchive::new(file)
        .map_err(|error| invalid_archive(ZIP, format!("it is not a zip, and no .tar.gz ({error})")))?;
    check_entry_count(archive.len(), ZIP, limits)?;
    if archive.has_duplicate_names() {
        return Err(invalid_archive(ZIP, "it holds the same name twice"));
    }
    let entry_index = index_entries(&mut archive)?;
    let paths: BTreeSet<String> = entry_index.keys().cloned().collect();
    for file in select_files(&paths, ZIP, limits)? {
        write_file(archive.by_index(entry_index[&file.path]).map_err(damaged_zip)?, &file, ZIP, target_dir)?;
    }
    Ok(())
}

fn index_entries(archive: &mut ZipArchive<File>) -> Result<EntryIndex> {
    let mut entries = EntryIndex::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(damaged_zip)?;
        let name = validated_name(&entry)?;
        if !entry.is_dir() {
            entries.insert(name, index);
        }
    }
    Ok(entries)
}

fn validated_name(entry: &ZipFileEntry) -> Result<String> {
    let name = entry.name().map_err(damaged_zip)?.into_owned();
    check_entry_path(&name, ZIP, if entry.is_symlink() { EntryKind::Link } else { EntryKind::File })?;
    if entry.encrypted() {
        let reason = format!("the entry {name:?} is encrypted; zip the folder without a password");
        return Err(invalid_archive(ZIP, reason));
    }
    Ok(name)
}

fn damaged_zip(error: zip::result::ZipError) -> Error {
    invalid_archive(ZIP, format!("it is damaged ({error})"))
}
