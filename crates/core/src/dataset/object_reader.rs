//! Reader of the formats whose rows are objects.

use super::diagnostics::{self, Diagnostic};
use super::objects::ObjectSource;
use super::record::Record;
use super::row::{ParsedRow, RecordParser, RowReader};
use std::io;

pub(super) struct ObjectReader {
    source: Box<dyn ObjectSource>,
    parser: Box<dyn RecordParser>,
}

impl ObjectReader {
    pub fn new(source: Box<dyn ObjectSource>, parser: Box<dyn RecordParser>) -> Self {
        Self { source, parser }
    }
}

impl RowReader for ObjectReader {
    fn next_row(&mut self) -> io::Result<Option<ParsedRow>> {
        let Some(object) = self.source.next_object()? else { return Ok(None) };
        let parse = |record: &Record<'_>, note: Option<&str>| {
            let row = self.parser.parse(record);
            row.map_err(|reason| match note {
                Some(note) => reason.with_note(diagnostics::MISSING_FIELD, note),
                None => reason,
            })
        };
        let content = match object.text.and_then(|text| with_record(&text, parse)) {
            Ok(content) => content,
            Err(diagnostic) => Err(diagnostic.into()),
        };
        Ok(Some(ParsedRow { line: object.line, content }))
    }

    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        self.source.take_warnings()
    }

    fn take_file_error(&mut self) -> Option<Diagnostic> {
        self.source.take_file_error()
    }
}

/// What an error about a missing field adds.
const NON_FINITE_NOTE: &str = "`NaN` and `Infinity`, which are no JSON, count as missing";

/// Parses an object. `NaN` and `Infinity`, which Python writes for missing numbers, count as null, and `read` gets a note about them.
fn with_record<T>(text: &str, read: impl FnOnce(&Record<'_>, Option<&str>) -> T) -> Result<T, Diagnostic> {
    match Record::parse_json(text) {
        Ok(record) => Ok(read(&record, None)),
        Err(diagnostic) => match without_non_finite_numbers(text) {
            Some(text) => {
                Record::parse_json(&text).map(|record| read(&record, Some(NON_FINITE_NOTE))).map_err(|_| diagnostic)
            }
            None => Err(diagnostic),
        },
    }
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of strings by `null`; `None` if there are none.
fn without_non_finite_numbers(text: &str) -> Option<String> {
    const NAMES: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    let mut replaced = String::with_capacity(text.len());
    let (mut is_string, mut is_escaped, mut skipped_until, mut is_changed) = (false, false, 0, false);
    for (at, character) in text.char_indices() {
        if at < skipped_until {
            continue;
        }
        if !is_string && let Some(name) = NAMES.into_iter().find(|name| text[at..].starts_with(name)) {
            replaced.push_str("null");
            skipped_until = at + name.len();
            is_changed = true;
            continue;
        }
        match character {
            '"' if !is_escaped => is_string = !is_string,
            _ => {}
        }
        is_escaped = character == '\\' && is_string && !is_escaped;
        replaced.push(character);
    }
    is_changed.then_some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_numbers_outside_of_strings_count_as_null() {
        let replaced = |text: &str| without_non_finite_numbers(text);
        assert_eq!(replaced(r#"{"a": NaN, "b": -Infinity}"#).as_deref(), Some(r#"{"a": null, "b": null}"#));
        assert_eq!(replaced(r#"{"a": "NaN", "b\"": "Infinity \\"}"#), None);
        assert_eq!(replaced(r#"{"a": "\\", "b": NaN}"#).as_deref(), Some(r#"{"a": "\\", "b": null}"#));
    }

    #[test]
    fn errors_are_those_of_the_text_as_it_is() {
        assert!(with_record("{\"a\": NaN}", |record, note| record.get("a").is_none() && note.is_some()).unwrap());
        assert!(with_record("{\"a\": NaN,}", |_, _| ()).is_err());
    }
}
