//! FASTA: a header line `>id|label`, and the lines of its sequence.

use super::object_source::{ObjectSource, SourceObject};
use super::text_lines::TextLines;
use crate::dataset::diagnostics::{self, Diagnostic, quote};
use crate::dataset::line_source::LineSource;
use crate::dataset::row::record_too_long;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::io;

/// Joins the lines of a sequence into an object with the fields of its header and `text`.
pub(super) struct Sequences {
    lines: TextLines,
    max_sequence_bytes: usize,
    /// Header of the next sequence.
    pending: Option<(u64, Result<String, Diagnostic>)>,
    has_warned: bool,
    warnings: Vec<(u64, Diagnostic)>,
}

impl Sequences {
    pub fn new(source: LineSource, max_sequence_bytes: usize) -> Self {
        let lines = TextLines::new(source, max_sequence_bytes);
        Self { lines, max_sequence_bytes, pending: None, has_warned: false, warnings: Vec::new() }
    }
}

impl ObjectSource for Sequences {
    fn next_object(&mut self) -> io::Result<Option<SourceObject<'_>>> {
        let mut header = self.pending.take();
        let mut sequence = String::new();
        let mut error = None;
        while let Some(line) = self.lines.next_visible_line()? {
            match line.text {
                Ok(text) if text.starts_with('>') => {
                    let next = Some((line.number, Ok(text[1..].trim().to_string())));
                    if header.is_none() {
                        header = next;
                    } else {
                        self.pending = next;
                        break;
                    }
                }
                // A comment of old files.
                Ok(text) if text.starts_with(';') => {}
                Ok(text) => {
                    if header.is_none() {
                        header = Some((line.number, Err(no_header())));
                    }
                    if sequence.len() + text.len() > self.max_sequence_bytes {
                        error.get_or_insert_with(|| record_too_long(self.max_sequence_bytes));
                    } else {
                        sequence.extend(text.split_whitespace());
                    }
                }
                Err(diagnostic) => {
                    header.get_or_insert((line.number, Ok(String::new())));
                    error.get_or_insert(diagnostic);
                }
            }
        }
        let Some((line, header)) = header else { return Ok(None) };
        let text = match (header, error) {
            (Err(error), _) | (Ok(_), Some(error)) => Err(error),
            (Ok(header), None) => {
                let mut fields = header_fields(&header);
                if fields.len() < 2 && !self.has_warned {
                    self.has_warned = true;
                    self.warnings.push((line, no_label(&header)));
                }
                fields.insert("text".to_string(), sequence.into());
                Ok(Cow::Owned(Value::Object(fields).to_string()))
            }
        };
        Ok(Some(SourceObject { line, text }))
    }

    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        std::mem::take(&mut self.warnings)
    }
}

/// Fields of a header: `id` and what follows it. `id|label` and `id label` have a label; `id TARGET=1.5 SET=train` has the fields
/// `target` and `set`. Everything else is `description`.
fn header_fields(header: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    let (id, rest) = match header.split_once(char::is_whitespace) {
        Some((id, rest)) => (id, rest.trim()),
        None => (header, ""),
    };
    let assignments: Vec<(&str, &str)> = rest.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let is_assigned = !assignments.is_empty() && assignments.len() == rest.split_whitespace().count();
    match (id.split('|').collect::<Vec<_>>().as_slice(), rest) {
        ([id, label], "") if !label.is_empty() => {
            fields.insert("id".to_string(), (*id).into());
            fields.insert("label".to_string(), (*label).into());
        }
        (_, rest) => {
            fields.insert("id".to_string(), id.into());
            if is_assigned {
                fields.extend(assignments.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.into())));
            } else if !rest.is_empty() {
                let name = if rest.contains(char::is_whitespace) { "description" } else { "label" };
                fields.insert(name.to_string(), rest.into());
            }
        }
    }
    fields
}

fn no_header() -> Diagnostic {
    Diagnostic::new(
        diagnostics::UNREADABLE_RECORD,
        "the sequence has no header: put a line such as `>id|label` before it",
    )
}

fn no_label(header: &str) -> Diagnostic {
    let message = format!(
        "the header {} and perhaps later ones have no label: where the task needs one, write `>id|label`, or `>id TARGET=1.5` for a number",
        quote(header)
    );
    Diagnostic::new(diagnostics::NO_LABEL, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    type Objects = Vec<(u64, Result<String, &'static str>)>;

    fn objects(text: &str) -> (Objects, usize) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut sequences = Sequences::new(LineSource::new(file).unwrap(), 40);
        let mut objects = Vec::new();
        while let Some(object) = sequences.next_object().unwrap() {
            objects.push((object.line, object.text.map(Cow::into_owned).map_err(|diagnostic| diagnostic.code)));
        }
        (objects, sequences.take_warnings().len())
    }

    #[test]
    fn sequences_over_several_lines_have_the_fields_of_their_header() {
        let text = ">p0|acidic\nMTPL\nEEIW\n\n>p1 basic\nMY K\n>p2 TARGET=1.5 SET=train\nMK\n";
        let (objects, warnings) = objects(text);
        let expected = [
            (1, r#"{"id":"p0","label":"acidic","text":"MTPLEEIW"}"#),
            (5, r#"{"id":"p1","label":"basic","text":"MYK"}"#),
            (7, r#"{"id":"p2","target":"1.5","set":"train","text":"MK"}"#),
        ];
        assert_eq!(objects, expected.map(|(line, text)| (line, Ok(text.to_string()))));
        assert_eq!(warnings, 0);
    }

    #[test]
    fn headers_without_label_and_bad_sequences_are_reported() {
        let long = "M".repeat(30);
        let (objects, warnings) = objects(&format!("MT\n>sp|P1|X_HUMAN Some protein\nMK\n>a\n{long}\n{long}\n>b\n\n"));
        assert_eq!(objects[0], (1, Err("unreadable_record")));
        let description = r#"{"id":"sp|P1|X_HUMAN","description":"Some protein","text":"MK"}"#;
        assert_eq!(objects[1], (2, Ok(description.to_string())));
        assert_eq!(objects[2], (4, Err("record_too_long")));
        assert_eq!(objects[3], (7, Ok(r#"{"id":"b","text":""}"#.to_string())));
        assert_eq!((objects.len(), warnings), (4, 1));
    }
}
