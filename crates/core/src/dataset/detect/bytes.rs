//! Bytes of a text one by one, with their positions.

use crate::dataset::line_source::{LineSource, Position};
use std::io;

/// Length of a string that is kept.
const MAX_STRING_BYTES: usize = 200;

/// Bytes of a source, with the position of the last one.
pub(super) struct Bytes {
    source: LineSource,
    chunk: Vec<u8>,
    next: usize,
    chunk_start: Position,
}

impl Bytes {
    pub fn new(source: LineSource) -> Self {
        Self { chunk_start: source.position(), source, chunk: Vec::new(), next: 0 }
    }

    pub fn next(&mut self) -> io::Result<Option<u8>> {
        if self.next == self.chunk.len() {
            self.chunk.clear();
            self.next = 0;
            self.chunk_start = self.source.position();
            self.source.read_chunk(&mut self.chunk)?;
        }
        let byte = self.chunk.get(self.next).copied();
        self.next += usize::from(byte.is_some());
        Ok(byte)
    }

    pub fn next_visible(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.next()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                byte => return Ok(byte),
            }
        }
    }

    /// Position of the byte that was returned last.
    pub fn position(&self) -> Position {
        Position { offset: self.chunk_start.offset + self.next.saturating_sub(1) as u64, line: self.chunk_start.line }
    }

    /// Reads the rest of a string after its opening quote; returns its first bytes.
    pub fn read_string(&mut self) -> io::Result<Option<String>> {
        let mut text = Vec::new();
        loop {
            let byte = match self.next()? {
                Some(b'"') => return Ok(Some(String::from_utf8_lossy(&text).into_owned())),
                Some(b'\\') => self.next()?,
                byte => byte,
            };
            match byte {
                None => return Ok(None),
                Some(byte) if text.len() < MAX_STRING_BYTES => text.push(byte),
                Some(_) => {}
            }
        }
    }
}
