//! Reader of JSON lines: one object per line.

use super::line_source::{LineSource, trim_line_ending};
use super::record::Record;
use super::row::{ParsedRow, RecordParser, RowReader, decode_utf8, record_too_long};
use std::io;

pub(super) struct JsonlReader {
    lines: JsonLines,
    parser: Box<dyn RecordParser>,
}

/// Non-blank lines of a file.
struct JsonLines {
    source: LineSource,
    max_line_bytes: usize,
    buffer: Vec<u8>,
}

enum LineLength {
    WithinLimit,
    TooLong,
}

impl JsonlReader {
    pub fn new(source: LineSource, parser: Box<dyn RecordParser>, max_record_bytes: usize) -> Self {
        Self { lines: JsonLines::new(source, max_record_bytes), parser }
    }
}

impl RowReader for JsonlReader {
    fn next_row(&mut self) -> io::Result<Option<ParsedRow>> {
        Ok(match self.lines.next_line()? {
            None => None,
            Some((line, LineLength::TooLong)) => {
                Some(ParsedRow::invalid(line, record_too_long(self.lines.max_line_bytes)))
            }
            Some((line, LineLength::WithinLimit)) => {
                let record = decode_utf8(&self.lines.buffer, line, &self.lines.source).and_then(Record::parse_json);
                let content = match record {
                    Ok(record) => self.parser.parse(&record),
                    Err(diagnostic) => Err(diagnostic.into()),
                };
                Some(ParsedRow { line, content })
            }
        })
    }
}

impl JsonLines {
    fn new(source: LineSource, max_line_bytes: usize) -> Self {
        Self { source, max_line_bytes, buffer: Vec::new() }
    }

    /// Reads the next line that is not blank into `buffer`, unless it is too long. Returns its number.
    fn next_line(&mut self) -> io::Result<Option<(u64, LineLength)>> {
        loop {
            self.buffer.clear();
            let line = self.source.position().line;
            while self.source.position().line == line {
                if self.source.read_chunk(&mut self.buffer)? == 0 {
                    break;
                }
                if trim_line_ending(&self.buffer).len() > self.max_line_bytes {
                    if self.source.position().line == line {
                        self.source.skip_line()?;
                    }
                    return Ok(Some((line, LineLength::TooLong)));
                }
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some((line, LineLength::WithinLimit)));
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
        }
    }
}
