//! Size and sha256 of files.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
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

/// Size and sha256 of a file of any size.
pub fn digest(path: &Path) -> io::Result<FileDigest> {
    let mut target = DigestWriter::new(io::sink());
    copy_all(&mut File::open(path)?, &mut target)?;
    Ok(target.finish()?.1)
}

/// Copies with a large buffer, because every write is hashed.
pub fn copy_all(source: &mut File, target: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(()),
            count => target.write_all(&buffer[..count])?,
        }
    }
}
