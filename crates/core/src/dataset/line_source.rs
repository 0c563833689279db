//! Reading of a file line by line, with byte offsets and line numbers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// Largest chunk that is read at once; longer lines take several.
const CHUNK_BYTES: u64 = 64 * 1024;
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// Position in a file: the start of a line, or a chunk boundary inside a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub offset: u64,
    pub line: u64,
}

/// File without its UTF-8 byte order marks.
pub(super) struct LineSource {
    reader: BufReader<File>,
    position: Position,
    /// Length of the byte order marks, which count in the columns of the first line.
    bom_bytes: usize,
}

impl LineSource {
    /// Starts after the byte order marks of a file; some programs write two.
    pub fn new(file: File) -> io::Result<Self> {
        let mut source = Self { reader: BufReader::new(file), position: Position { offset: 0, line: 1 }, bom_bytes: 0 };
        source.seek(source.position)?;
        loop {
            let marks = source.reader.fill_buf()?.chunks_exact(BYTE_ORDER_MARK.len());
            let count = marks.take_while(|mark| *mark == BYTE_ORDER_MARK).count();
            if count == 0 {
                return Ok(source);
            }
            source.bom_bytes += count * BYTE_ORDER_MARK.len();
            source.seek(Position { offset: source.bom_bytes as u64, line: 1 })?;
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Appends the rest of the line with its line ending, or the next chunk of a long line. Returns the number of bytes, which is
    /// 0 at the end of the file.
    pub fn read_chunk(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let read_bytes = self.reader.by_ref().take(CHUNK_BYTES).read_until(b'\n', buffer)?;
        self.position.offset += read_bytes as u64;
        if read_bytes > 0 && buffer.last() == Some(&b'\n') {
            self.position.line += 1;
        }
        Ok(read_bytes)
    }

    /// Skips the rest of the line.
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

    /// Column of the byte at `index` of a line, from 1.
    pub fn column(&self, line: u64, index: usize) -> usize {
        index + 1 + if line == 1 { self.bom_bytes } else { 0 }
    }
}

/// Removes the line ending: `\n`, `\r\n`, or a `\r` at the end of the file.
pub(super) fn trim_line_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
