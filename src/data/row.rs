//! One row as it stands in the file, before it is judged: the seam between the formats and the rules.

use super::findings::{self, Flaw};
use super::source::Source;
use std::borrow::Cow;
use std::io;

/// A format's reader.
pub(super) trait Rows {
    /// The next row, in the order of the file. Blank lines are none.
    fn next(&mut self) -> io::Result<Option<Row<'_>>>;
}

/// A record: the line where it begins, and its fields or everything that keeps it from having them.
pub(super) struct Row<'a> {
    pub line: u64,
    pub content: Result<Fields<'a>, Vec<Flaw>>,
}

pub(super) struct Fields<'a> {
    pub text: Cow<'a, str>,
    pub text_pair: Option<Cow<'a, str>>,
    pub label: Cow<'a, str>,
}

impl Row<'_> {
    pub fn bad(line: u64, flaw: Flaw) -> Self {
        Self { line, content: Err(vec![flaw]) }
    }
}

/// The record as text, or the place of its first byte that is not UTF-8.
pub(super) fn as_text<'a>(raw: &'a [u8], line: u64, source: &Source) -> Result<&'a str, Flaw> {
    std::str::from_utf8(raw).map_err(|error| {
        let before = &raw[..error.valid_up_to()];
        let byte = raw.get(error.valid_up_to()).copied().unwrap_or_default();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let at_line = line + before.iter().filter(|byte| **byte == b'\n').count() as u64;
        let column = source.column(at_line, before.len() - line_start);
        let message = format!("byte {column} of line {at_line} (0x{byte:02X}) is not UTF-8: save the file as UTF-8");
        Flaw::new(findings::BAD_UTF8, message)
    })
}

pub(super) fn too_long(limit: usize) -> Flaw {
    let message = format!("the record is longer than the {limit} bytes that this server takes: shorten it");
    Flaw::new(findings::RECORD_TOO_LONG, message)
}
