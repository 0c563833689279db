//! Hash of a file's content.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};

/// SHA-256 of a file of any size, in hexadecimal.
pub fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}
