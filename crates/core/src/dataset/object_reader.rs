//! Reader of the formats whose rows are objects.

use super::column_mapping::ColumnMapping;
use super::diagnostics::{self, Diagnostic};
use super::json_fields::JsonObject;
use super::objects::ObjectSource;
use super::row::{ParsedRow, RowReader};
use super::row_format::{RowFormat, row_format};
use std::io;

pub(super) struct ObjectReader {
    source: Box<dyn ObjectSource>,
    mapping: ColumnMapping,
    format: &'static dyn RowFormat,
}

impl ObjectReader {
    pub fn new(source: Box<dyn ObjectSource>, mapping: ColumnMapping) -> Self {
        let format = row_format(mapping.schema);
        Self { source, mapping, format }
    }
}

impl RowReader for ObjectReader {
    fn next_row(&mut self) -> io::Result<Option<ParsedRow>> {
        let Some(object) = self.source.next_object()? else { return Ok(None) };
        let read_object = |object: &JsonObject<'_>, note: Option<&str>| {
            let row = self.format.read_object(object, &self.mapping);
            row.map_err(|errors| {
                note.into_iter().fold(errors, |errors, note| errors.with_note(diagnostics::MISSING_FIELD, note))
            })
        };
        let content = match object.text.and_then(|text| with_object(&text, read_object)) {
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

/// Field names of the first object of a source; none if the file does not begin with an object.
pub(super) fn first_field_names(mut source: Box<dyn ObjectSource>) -> io::Result<Vec<String>> {
    let Some(object) = source.next_object()? else { return Ok(Vec::new()) };
    let names = |object: &JsonObject<'_>, _: Option<&str>| object.field_names().map(str::to_string).collect();
    Ok(object.text.and_then(|text| with_object(&text, names)).unwrap_or_default())
}

/// What an error about a missing field adds.
const NON_FINITE_NOTE: &str = "`NaN` and `Infinity`, which are no JSON, count as missing";

/// Parses an object. `NaN` and `Infinity`, which Python writes for missing numbers, count as null, and `read` gets a note about them.
fn with_object<T>(text: &str, read: impl FnOnce(&JsonObject<'_>, Option<&str>) -> T) -> Result<T, Diagnostic> {
    match JsonObject::parse(text) {
        Ok(object) => Ok(read(&object, None)),
        Err(diagnostic) => match without_non_finite_numbers(text) {
            Some(text) => {
                JsonObject::parse(&text).map(|object| read(&object, Some(NON_FINITE_NOTE))).map_err(|_| diagnostic)
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
        assert!(with_object("{\"a\": NaN}", |object, note| object.get("a").is_none() && note.is_some()).unwrap());
        assert!(with_object("{\"a\": NaN,}", |_, _| ()).is_err());
    }
}
