//! Copies and digests of files.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

const BUFFER_BYTES: usize = 1 << 20;

/// Size and sha256 of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// Writer that digests what it writes.
pub struct DigestWriter<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> DigestWriter<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    pub fn finish(mut self) -> io::Result<(W, FileDigest)> {
        self.inner.flush()?;
        Ok((self.inner, FileDigest { bytes: self.bytes, sha256: hex::encode(self.hash.finalize()) }))
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Copies a file to a new one, and syncs that.
pub fn copy(from: &Path, to: &Path) -> io::Result<FileDigest> {
    let mut source = File::open(from)?;
    let mut target = DigestWriter::new(File::create(to)?);
    copy_all(&mut source, &mut target)?;
    let (file, digest) = target.finish()?;
    file.sync_all()?;
    Ok(digest)
}

pub fn digest(path: &Path) -> io::Result<FileDigest> {
    let mut target = DigestWriter::new(io::sink());
    copy_all(&mut File::open(path)?, &mut target)?;
    Ok(target.finish()?.1)
}

fn copy_all(source: &mut File, target: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(()),
            count => target.write_all(&buffer[..count])?,
        }
    }
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
