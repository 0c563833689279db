//! Lines of a text that are not blank, of limited length.

use crate::dataset::diagnostics::Diagnostic;
use crate::dataset::line_source::{LineSource, trim_line_ending};
use crate::dataset::row::{decode_utf8, record_too_long};
use std::io;

/// Reads lines into one buffer.
pub(super) struct TextLines {
    source: LineSource,
    max_line_bytes: usize,
    buffer: Vec<u8>,
}

/// Line that was read, without its line ending.
pub(super) struct TextLine<'a> {
    pub number: u64,
    pub text: Result<&'a str, Diagnostic>,
}

impl TextLines {
    pub fn new(source: LineSource, max_line_bytes: usize) -> Self {
        Self { source, max_line_bytes, buffer: Vec::new() }
    }

    /// Reads the next line.
    pub fn next_line(&mut self) -> io::Result<Option<TextLine<'_>>> {
        let line = self.fill()?;
        Ok(line.map(|(number, length)| self.line(number, length)))
    }

    /// Reads the next line that is not blank.
    pub fn next_visible_line(&mut self) -> io::Result<Option<TextLine<'_>>> {
        loop {
            match self.fill()? {
                None => return Ok(None),
                Some((_, Length::WithinLimit)) if self.buffer.trim_ascii().is_empty() => {}
                Some((number, length)) => return Ok(Some(self.line(number, length))),
            }
        }
    }

    /// Reads a line into the buffer, unless it is too long.
    fn fill(&mut self) -> io::Result<Option<(u64, Length)>> {
        self.buffer.clear();
        let number = self.source.position().line;
        while self.source.position().line == number {
            if self.source.read_chunk(&mut self.buffer)? == 0 {
                break;
            }
            if trim_line_ending(&self.buffer).len() > self.max_line_bytes {
                if self.source.position().line == number {
                    self.source.skip_line()?;
                }
                return Ok(Some((number, Length::TooLong)));
            }
        }
        Ok((!self.buffer.is_empty()).then_some((number, Length::WithinLimit)))
    }

    fn line(&self, number: u64, length: Length) -> TextLine<'_> {
        let text = match length {
            Length::WithinLimit => decode_utf8(trim_line_ending(&self.buffer), number, &self.source),
            Length::TooLong => Err(record_too_long(self.max_line_bytes)),
        };
        TextLine { number, text }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    WithinLimit,
    TooLong,
}
