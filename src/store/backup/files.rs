//! Copies of files and folders, with their digests.

use crate::store::blobs::{DigestWriter, FileDigest, copy_all, digest};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Copies a file to a new one, and syncs that.
pub fn copy(from: &Path, to: &Path) -> io::Result<FileDigest> {
    let mut source = File::open(from)?;
    let mut target = DigestWriter::new(File::create(to)?);
    copy_all(&mut source, &mut target)?;
    let (file, digest) = target.finish()?;
    file.sync_all()?;
    Ok(digest)
}

/// Copies a folder and the folders in it, without temporary files. Calls `copied` with the path of each file relative to the folder.
///
/// # Errors
/// `NotFound` if a file is removed meanwhile.
pub fn copy_dir(from: &Path, to: &Path, copied: &mut dyn FnMut(String, FileDigest)) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(".tmp-") {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => {
                let mut nested = |path: String, digest| copied(format!("{name}/{path}"), digest);
                copy_dir(&entry.path(), &to.join(&name), &mut nested)?;
            }
            false => copied(name.clone(), copy(&entry.path(), &to.join(&name))?),
        }
    }
    Ok(())
}

/// Digests the files of a folder and of the folders in it. Calls `found` with the path of each file relative to the folder.
pub fn digest_dir(dir: &Path, found: &mut dyn FnMut(String, FileDigest)) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type()?.is_dir() {
            true => {
                let mut nested = |path: String, digest| found(format!("{name}/{path}"), digest);
                digest_dir(&entry.path(), &mut nested)?;
            }
            false => found(name, digest(&entry.path())?),
        }
    }
    Ok(())
}
