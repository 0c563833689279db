//! Rows as a reader of a file format returns them: a valid row, or the errors that make it unusable.

use super::diagnostics::{self, Diagnostic};
use super::duplicates::DuplicateKey;
use super::line_source::LineSource;
use super::record::Record;
use crate::task::{Example, Target};
use std::io;

/// Reader of one file format.
pub(super) trait RowReader {
    /// Returns the next row in file order, or `None` at the end of the file. Blank lines are skipped.
    fn next_row(&mut self) -> io::Result<Option<ParsedRow>>;

    /// Warnings since the last call, with their lines.
    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)>;

    /// Error that ended the file before its end, of the file as a whole.
    fn take_file_error(&mut self) -> Option<Diagnostic> {
        None
    }
}

/// Turns the records of a reader into rows.
pub(super) trait RecordParser {
    /// Receives the header of a table. Returns the indices of the columns that its records need.
    fn set_header(&mut self, line: u64, header: &[String]) -> Vec<usize>;

    fn parse(&mut self, record: &Record<'_>) -> Result<ValidRow, UnusableRow>;
}

/// Reader that is ready, or an error of the file as a whole, with its line if it has one.
pub(super) type OpenResult<T> = std::result::Result<T, (Option<u64>, Diagnostic)>;

/// Record of a file, and the line where it begins.
pub(super) struct ParsedRow {
    pub line: u64,
    pub content: Result<ValidRow, UnusableRow>,
}

/// Content of an example, and what the report needs to know of the row.
#[derive(Debug)]
pub(super) struct ValidRow {
    pub text: String,
    pub text_pair: Option<String>,
    pub target: Target,
    pub duplicate_key: DuplicateKey,
    /// Names of the fields that lost surrounding white space.
    pub trimmed_fields: Vec<&'static str>,
    pub warning: Option<Diagnostic>,
}

/// Why a row is no example.
#[derive(Debug)]
pub(super) enum UnusableRow {
    /// Errors of the row.
    Invalid(Vec<Diagnostic>),
    /// The row itself says that it is not to be read; with the reason.
    LeftOut(String),
}

impl ParsedRow {
    pub fn invalid(line: u64, diagnostic: Diagnostic) -> Self {
        Self { line, content: Err(diagnostic.into()) }
    }

    /// Removes the errors with this code. A row without other errors stays unusable.
    pub fn remove_errors(&mut self, code: &str) {
        if let Err(UnusableRow::Invalid(errors)) = &mut self.content {
            errors.retain(|error| error.code != code);
        }
    }
}

impl ValidRow {
    pub fn into_example(self, line: u64) -> Example {
        Example { line, text: self.text, text_pair: self.text_pair, target: self.target }
    }
}

impl UnusableRow {
    /// Adds a sentence to the errors with this code.
    pub fn with_note(mut self, code: &str, note: &str) -> Self {
        if let Self::Invalid(errors) = &mut self {
            for error in errors.iter_mut().filter(|error| error.code == code) {
                error.message = format!("{}. {note}", error.message);
            }
        }
        self
    }

    /// Both values, or the errors of both.
    pub fn both<A, B>(first: Result<A, Diagnostic>, second: Result<B, Diagnostic>) -> Result<(A, B), Self> {
        match (first, second) {
            (Ok(first), Ok(second)) => Ok((first, second)),
            (first, second) => Err(Self::Invalid(first.err().into_iter().chain(second.err()).collect())),
        }
    }
}

impl From<Diagnostic> for UnusableRow {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Invalid(vec![diagnostic])
    }
}

/// Decodes a record.
///
/// # Errors
/// `bad_utf8` with the line and column of the first invalid byte.
pub(super) fn decode_utf8<'a>(raw: &'a [u8], line: u64, source: &LineSource) -> Result<&'a str, Diagnostic> {
    std::str::from_utf8(raw).map_err(|error| {
        let valid_prefix = &raw[..error.valid_up_to()];
        let bad_byte = raw.get(error.valid_up_to()).copied().unwrap_or_default();
        let line_start = valid_prefix.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let bad_line = line + valid_prefix.iter().filter(|byte| **byte == b'\n').count() as u64;
        let column = source.column(bad_line, valid_prefix.len() - line_start);
        let message =
            format!("byte {column} of line {bad_line} (0x{bad_byte:02X}) is not UTF-8: save the file as UTF-8, or name its `\"encoding\"`");
        Diagnostic::new(diagnostics::BAD_UTF8, message)
    })
}

pub(super) fn record_too_long(limit: usize) -> Diagnostic {
    let message = format!("the record is longer than the {limit} bytes that this server takes: shorten it");
    Diagnostic::new(diagnostics::RECORD_TOO_LONG, message)
}
