//! Reader of JSON lines: one object per line.

use super::column_mapping::ColumnMapping;
use super::json_fields::JsonObject;
use super::line_source::{LineSource, trim_line_ending};
use super::row::{ParsedRow, RowReader, decode_utf8, record_too_long};
use super::row_format::{RowFormat, row_format};
use std::io;

pub(super) struct JsonlReader {
    lines: JsonLines,
    mapping: ColumnMapping,
    format: &'static dyn RowFormat,
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
    pub fn new(source: LineSource, mapping: ColumnMapping, max_record_bytes: usize) -> Self {
        let format = row_format(mapping.schema);
        Self { lines: JsonLines::new(source, max_record_bytes), mapping, format }
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
                let object = decode_utf8(&self.lines.buffer, line, &self.lines.source).and_then(JsonObject::parse);
                let content = match object {
                    Ok(object) => self.format.read_object(&object, &self.mapping),
                    Err(diagnostic) => Err(diagnostic.into()),
                };
                Some(ParsedRow { line, content })
            }
        })
    }
}

/// Field names of the first object of a file; none if the file does not begin with an object of at most `max_bytes`.
pub(super) fn first_field_names(source: LineSource, max_bytes: usize) -> io::Result<Vec<String>> {
    let mut lines = JsonLines::new(source, max_bytes);
    let Some((line, LineLength::WithinLimit)) = lines.next_line()? else { return Ok(Vec::new()) };
    let object = decode_utf8(&lines.buffer, line, &lines.source).and_then(JsonObject::parse);
    Ok(object.map(|object| object.field_names().map(str::to_string).collect()).unwrap_or_default())
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
