//! Values of a JSON document: the elements of an array, or objects one after another, over any number of lines.

use super::object_source::{ObjectSource, SourceObject};
use crate::dataset::diagnostics::{self, Diagnostic, quote, quote_list};
use crate::dataset::line_source::{LineSource, Position};
use crate::dataset::row::{decode_utf8, record_too_long};
use std::borrow::Cow;
use std::io;

/// Splits a document into its values without parsing them.
pub(super) struct JsonValues {
    source: LineSource,
    chunk: Vec<u8>,
    /// Index of the next byte in `chunk`.
    next: usize,
    chunk_start: Position,
    value: Vec<u8>,
    max_value_bytes: usize,
    scope: Scope,
    numbering: Numbering,
    values_read: u64,
    /// Bytes that may be read again after values that do not end. It keeps the time linear in the file's size.
    reread_budget: u64,
    warnings: Vec<(u64, Diagnostic)>,
}

/// Where the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// On the top level, alone or in arrays.
    Document,
    /// In an array whose elements may be lists; what follows it holds no rows.
    Array,
    /// After that array.
    End,
}

/// Meaning of the number of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// It is not known until the second value is found.
    First {
        line: u64,
    },
    Lines,
    /// The first two values stand on one line, as in a document without line ends: values are counted.
    Values,
}

/// End of a value.
enum ValueEnd {
    Complete,
    TooLong,
    /// A bracket does not fit, a string does not end on its line, or the file ends.
    Broken,
}

impl JsonValues {
    pub fn new(source: LineSource, max_value_bytes: usize, reread_budget: u64) -> Self {
        Self {
            chunk_start: source.position(),
            source,
            chunk: Vec::new(),
            next: 0,
            value: Vec::new(),
            max_value_bytes,
            scope: Scope::Document,
            numbering: Numbering::First { line: 0 },
            values_read: 0,
            reread_budget,
            warnings: Vec::new(),
        }
    }

    /// Reads the elements of the array that begins at `start`; they may be lists.
    pub fn start_at_array(&mut self, start: Position) -> io::Result<()> {
        self.seek(start)?;
        // The opening bracket.
        self.peek()?;
        self.next += 1;
        self.scope = Scope::Array;
        Ok(())
    }

    /// Reads the elements of the array that begins at `start`, and warns about the other members of the object.
    pub fn start_at_member(&mut self, name: &str, start: Position, other_names: &[String]) -> io::Result<()> {
        self.start_at_array(start)?;
        if !other_names.is_empty() {
            let message = format!(
                "the rows are the list in {}; what stands beside it is not read: {}",
                quote(name),
                quote_list(other_names.iter().map(String::as_str))
            );
            self.warnings.push((start.line, Diagnostic::new(diagnostics::NOT_READ, message)));
        }
        Ok(())
    }

    fn seek(&mut self, position: Position) -> io::Result<()> {
        self.source.seek(position)?;
        self.chunk.clear();
        self.next = 0;
        self.chunk_start = position;
        Ok(())
    }

    /// The next byte, which is not consumed.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.next == self.chunk.len() {
            self.chunk.clear();
            self.next = 0;
            self.chunk_start = self.source.position();
            self.source.read_chunk(&mut self.chunk)?;
        }
        Ok(self.chunk.get(self.next).copied())
    }

    /// Skips what stands between values; `false` at the end of the rows.
    fn skip_to_value(&mut self) -> io::Result<bool> {
        loop {
            match self.peek()? {
                None => return Ok(false),
                Some(b']') if self.scope == Scope::Array => {
                    self.scope = Scope::End;
                    return Ok(false);
                }
                Some(byte) if byte.is_ascii_whitespace() || byte == b',' => {}
                Some(b'[' | b']') if self.scope == Scope::Document => {}
                Some(_) => return Ok(true),
            }
            self.next += 1;
        }
    }

    /// Copies a value into `value`, up to the length limit.
    fn read_value(&mut self) -> io::Result<ValueEnd> {
        self.value.clear();
        let mut closers: Vec<u8> = Vec::new();
        let (mut is_string, mut is_escaped, mut is_long) = (false, false, false);
        loop {
            let Some(byte) = self.peek()? else { return Ok(Self::end_at_eof(&closers, is_string, is_long)) };
            let is_literal = !is_string && closers.is_empty();
            if is_literal && !self.value.is_empty() && (byte.is_ascii_whitespace() || b",]}".contains(&byte)) {
                return Ok(if is_long { ValueEnd::TooLong } else { ValueEnd::Complete });
            }
            self.next += 1;
            if self.value.len() < self.max_value_bytes {
                self.value.push(byte);
            } else {
                is_long = true;
            }
            match (byte, is_string) {
                (b'\n', true) => return Ok(ValueEnd::Broken),
                _ if is_escaped => is_escaped = false,
                (b'\\', true) => is_escaped = true,
                (b'"', _) => is_string = !is_string,
                (b'{', false) => closers.push(b'}'),
                (b'[', false) => closers.push(b']'),
                (b'}' | b']', false) if closers.pop() != Some(byte) => return Ok(ValueEnd::Broken),
                _ => {}
            }
            let is_closed = closers.is_empty() && !is_string && b"}]\"".contains(&byte);
            if is_closed {
                return Ok(if is_long { ValueEnd::TooLong } else { ValueEnd::Complete });
            }
        }
    }

    fn end_at_eof(closers: &[u8], is_string: bool, is_long: bool) -> ValueEnd {
        match closers.is_empty() && !is_string {
            true if is_long => ValueEnd::TooLong,
            true => ValueEnd::Complete,
            false => ValueEnd::Broken,
        }
    }

    /// Continues after a value that does not end: at the next line that opens an object at the same indentation. Returns whether there
    /// is one.
    fn recover(&mut self, second_line: Option<Position>, indentation: Option<usize>) -> io::Result<bool> {
        self.next = self.chunk.len();
        if let Some(second_line) = second_line {
            let reread_bytes = self.source.position().offset.saturating_sub(second_line.offset);
            if reread_bytes > self.reread_budget {
                return self.skip_to_object(indentation);
            }
            self.reread_budget -= reread_bytes;
            self.seek(second_line)?;
        }
        self.skip_to_object(indentation)
    }

    /// Skips to a line that begins with `{` after this many spaces, or after any number.
    fn skip_to_object(&mut self, indentation: Option<usize>) -> io::Result<bool> {
        // A position that was sought is the start of a line.
        let mut line = if self.chunk.is_empty() { 0 } else { self.chunk_start.line };
        while self.peek()?.is_some() {
            let spaces = self.chunk.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let is_line_start = self.next == 0 && self.chunk_start.line != line;
            if is_line_start && self.chunk.get(spaces) == Some(&b'{') && indentation.is_none_or(|count| count == spaces)
            {
                return Ok(true);
            }
            line = self.chunk_start.line;
            self.next = self.chunk.len();
        }
        Ok(false)
    }

    /// Number of the value that begins on `line`.
    fn number(&mut self, line: u64) -> u64 {
        self.values_read += 1;
        match self.numbering {
            Numbering::First { .. } if self.values_read == 1 => self.numbering = Numbering::First { line },
            Numbering::First { line: 1 } if line == 1 => self.numbering = Numbering::Values,
            Numbering::First { .. } => self.numbering = Numbering::Lines,
            Numbering::Lines | Numbering::Values => {}
        }
        if self.numbering == Numbering::Values { self.values_read } else { line }
    }
}

impl ObjectSource for JsonValues {
    fn next_object(&mut self) -> io::Result<Option<SourceObject<'_>>> {
        if self.scope == Scope::End || !self.skip_to_value()? {
            return Ok(None);
        }
        let line = self.chunk_start.line;
        let number = self.number(line);
        let is_first_of_line = self.chunk[..self.next].trim_ascii().is_empty();
        let indentation = is_first_of_line.then_some(self.next);
        let second_line_from = self.source.position();
        let end = self.read_value()?;
        let text = match end {
            ValueEnd::Complete => decode_utf8(&self.value, line, &self.source).map(Cow::Borrowed),
            ValueEnd::TooLong => Err(record_too_long(self.max_value_bytes)),
            ValueEnd::Broken => {
                // The chunk in which the value begins ends with its line, unless the line is longer than a chunk.
                let has_second_line = self.chunk_start.line > line && second_line_from.line > line;
                let is_recovered = self.recover(has_second_line.then_some(second_line_from), indentation)?;
                Err(broken_value(is_recovered))
            }
        };
        Ok(Some(SourceObject { line: number, text }))
    }

    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        std::mem::take(&mut self.warnings)
    }
}

fn broken_value(is_recovered: bool) -> Diagnostic {
    let rest = if is_recovered { "" } else { ". Nothing after it is read" };
    let message = format!(
        "the JSON value that begins here does not end: a bracket or a quote is missing in it, or is one too many{rest}"
    );
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, message)
}

#[cfg(test)]
mod tests;
