//! Extracts an adapter from a `.tar.gz`.
//!
//! A tar has no index, so it is read twice: for the paths, and for the files of the adapter. The bytes that are unpacked are bounded.

use super::{
    EntryKind, ImportLimits, SelectedFile, check_entry_count, check_entry_path, invalid_archive, select_files,
    write_file,
};
use crate::error::{Context, Error, Result};
use flate2::read::MultiGzDecoder;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use tar::{Archive, Entry, EntryType};

const TAR: &str = ".tar.gz";

type TarReader<'a> = LimitedReader<MultiGzDecoder<BufReader<&'a File>>>;

pub(super) fn unpack(file: &File, target_dir: &Path, limits: &ImportLimits) -> Result<()> {
    let mut paths = BTreeSet::new();
    let mut count = 0;
    for_each_entry(file, limits, |path, entry| {
        count += 1;
        check_entry_count(count, TAR, limits)?;
        match is_file(path, entry)? && !paths.insert(path.to_string()) {
            true => Err(invalid_archive(TAR, "it holds the same name twice")),
            false => Ok(()),
        }
    })?;
    let selected = select_files(&paths, TAR, limits)?;
    for_each_entry(file, limits, |path, entry| {
        let find_file = |file: &&SelectedFile| file.path == path;
        match selected.iter().find(find_file) {
            Some(file) if is_file(path, entry)? => write_file(entry, file, TAR, target_dir),
            Some(_) | None => Ok(()),
        }
    })
}

/// Calls `visit` with the path and the content of every entry that stands for a file or folder.
fn for_each_entry(
    mut file: &File,
    limits: &ImportLimits,
    mut visit: impl FnMut(&str, &mut Entry<TarReader<'_>>) -> Result<()>,
) -> Result<()> {
    file.rewind().context("reading an uploaded archive")?;
    let max_bytes = limits.max_unpacked_bytes();
    let reader = LimitedReader { inner: MultiGzDecoder::new(BufReader::new(file)), remaining: max_bytes, max_bytes };
    let mut archive = Archive::new(reader);
    for entry in archive.entries().map_err(damaged_tar)? {
        let mut entry = entry.map_err(damaged_tar)?;
        if matches!(entry.header().entry_type(), EntryType::XGlobalHeader) {
            continue;
        }
        let path = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| invalid_archive(TAR, "it holds a name that is not UTF-8"))?;
        // `tar -C folder .` writes `./` before every name.
        visit(path.trim_start_matches("./"), &mut entry)?;
    }
    Ok(())
}

/// Whether the entry is a file; folders are not.
///
/// # Errors
/// `Invalid` (`unreadable_adapter`) if its path leaves the archive, or if it is a link, device or pipe.
fn is_file(path: &str, entry: &Entry<TarReader<'_>>) -> Result<bool> {
    let entry_type = entry.header().entry_type();
    let has_content = matches!(entry_type, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse);
    let kind = if has_content || entry_type.is_dir() { EntryKind::File } else { EntryKind::Link };
    check_entry_path(path, TAR, kind)?;
    Ok(has_content)
}

/// Reader that fails after too many bytes. Reading past them would take time in proportion to what they unpack to.
struct LimitedReader<R> {
    inner: R,
    remaining: u64,
    max_bytes: u64,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.remaining = self.remaining.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {} bytes, the most that is accepted", self.max_bytes))
        })?;
        Ok(count)
    }
}

fn damaged_tar(error: io::Error) -> Error {
    invalid_archive(TAR, format!("it cannot be read: {error}"))
}
