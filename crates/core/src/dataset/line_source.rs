//! The file's bytes, line by line, with their places. Knows nothing of what a line means.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A long line comes in pieces of this size.
const CHUNK_BYTES: u64 = 64 * 1024;
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// A place to read on from: the start of a line, or inside a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub offset: u64,
    pub line: u64,
}

/// A file with UTF-8's byte order mark taken off.
pub(super) struct LineSource {
    reader: BufReader<File>,
    position: Position,
    file_bytes: u64,
    /// Bytes of the mark: columns of the first line are counted with it.
    bom_bytes: usize,
}

impl LineSource {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut source =
            Self { reader: BufReader::new(file), position: Position { offset: 0, line: 1 }, file_bytes, bom_bytes: 0 };
        let prefix = source.read_prefix()?;
        if prefix == BYTE_ORDER_MARK {
            source.bom_bytes = prefix.len();
            source.seek(Position { offset: prefix.len() as u64, line: 1 })?;
        }
        Ok(source)
    }

    /// The size of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether the file begins with the byte order mark of UTF-16.
    pub fn is_utf16(&mut self) -> io::Result<bool> {
        let position = self.position;
        let prefix = self.read_prefix()?;
        self.seek(position)?;
        Ok(prefix.starts_with(&[0xFF, 0xFE]) || prefix.starts_with(&[0xFE, 0xFF]))
    }

    /// Appends the rest of the line with its end, or a piece of it where it is long. Answers how many bytes came: none
    /// at the end of the file.
    pub fn read_chunk(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let read_bytes = self.reader.by_ref().take(CHUNK_BYTES).read_until(b'\n', buffer)?;
        self.position.offset += read_bytes as u64;
        if read_bytes > 0 && buffer.last() == Some(&b'\n') {
            self.position.line += 1;
        }
        Ok(read_bytes)
    }

    /// Leaves the rest of the line unread.
    pub fn skip_line(&mut self) -> io::Result<()> {
        let skipped_bytes = self.reader.skip_until(b'\n')?;
        self.position.offset += skipped_bytes as u64;
        if skipped_bytes > 0 {
            self.position.line += 1;
        }
        Ok(())
    }

    pub fn seek(&mut self, position: Position) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(position.offset))?;
        self.position = position;
        Ok(())
    }

    /// The number, from 1, of the byte at `index` of a line whose content was read from its beginning.
    pub fn column(&self, line: u64, index: usize) -> usize {
        index + 1 + if line == 1 { self.bom_bytes } else { 0 }
    }

    /// The file's first three bytes; the place is the file's start afterwards.
    fn read_prefix(&mut self) -> io::Result<Vec<u8>> {
        let start_of_file = Position { offset: 0, line: 1 };
        self.seek(start_of_file)?;
        let mut prefix = Vec::with_capacity(BYTE_ORDER_MARK.len());
        self.reader.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut prefix)?;
        self.seek(start_of_file)?;
        Ok(prefix)
    }
}

/// Cuts the line's end off: `\n` or `\r\n`, or a last `\r` at the end of the file.
pub(super) fn trim_line_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
