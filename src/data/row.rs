//! One row as it stands in the file, before it is judged: the seam between the formats and the rules.

use super::findings::{self, Flaw, quoted};
use super::source::Source;
use crate::task::{Shape, Target};
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
    pub target: Written<'a>,
}

/// What a row teaches, as it is written.
pub(super) enum Written<'a> {
    Label(Cow<'a, str>),
    Labels(Vec<Cow<'a, str>>),
    Value(f64),
}

impl<'a> Written<'a> {
    /// From a table's field: sets of labels are separated by semicolons.
    pub fn read(shape: Shape, field: Cow<'a, str>) -> Result<Self, Flaw> {
        Ok(match shape {
            Shape::Label => Self::Label(field),
            Shape::Labels => {
                let labels: Vec<Cow<str>> = match field {
                    Cow::Borrowed(field) => field.split(';').map(Cow::Borrowed).collect(),
                    Cow::Owned(field) => field.split(';').map(|label| Cow::Owned(label.to_string())).collect(),
                };
                Self::Labels(labels.into_iter().filter(|label| !label.trim().is_empty()).collect())
            }
            Shape::Value => Self::Value(number(&field)?),
        })
    }

    pub fn labels(&self) -> &[Cow<'a, str>] {
        match self {
            Self::Label(label) => std::slice::from_ref(label),
            Self::Labels(labels) => labels,
            Self::Value(_) => &[],
        }
    }

    /// Equal for rows that teach the same.
    pub fn key(&self) -> String {
        match self {
            Self::Label(label) => label.to_string(),
            Self::Labels(labels) => {
                let mut labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
                labels.sort_unstable();
                labels.dedup();
                labels.join("; ")
            }
            Self::Value(value) => value.to_string(),
        }
    }

    pub fn target(&self) -> Target {
        match self {
            Self::Label(label) => Target::Label(label.to_string()),
            Self::Labels(labels) => {
                let mut labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
                labels.sort_unstable();
                labels.dedup();
                Target::Labels(labels)
            }
            Self::Value(value) => Target::Value(*value),
        }
    }
}

/// A finite number that an `f32` holds.
pub(super) fn number(field: &str) -> Result<f64, Flaw> {
    let number =
        field.trim().parse::<f64>().ok().filter(|value| value.is_finite() && value.abs() <= f64::from(f32::MAX));
    number.ok_or_else(|| {
        let message = format!("`value` is {}, and has to be a number such as 3.5", quoted(field));
        Flaw::new(findings::WRONG_TYPE, message)
    })
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
