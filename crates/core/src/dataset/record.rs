//! Record of a file: its fields by name, from a JSON object or from the cells of a table.

use super::diagnostics::{self, Diagnostic, quote, quote_list};
use super::field_value::{FieldValue, invalid_json};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Fields of one record. Values of JSON objects are not parsed yet.
#[derive(Debug, Default)]
pub(super) struct Record<'a> {
    fields: BTreeMap<Cow<'a, str>, FieldValue<'a>>,
    /// Whether an annotation tool exported the record without an annotation.
    pub is_unannotated: bool,
    /// Whether an annotation tool exported the record with several annotations, of which the first is read.
    pub has_several_annotations: bool,
}

type JsonFields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Field that holds the result of the first annotation of a Label Studio task.
pub(super) const ANNOTATION_RESULT: &str = "result";

impl<'a> Record<'a> {
    /// Parses an object, or spaCy's pair `["text", {"entities": […]}]`. The fields of a Label Studio task are those of its `data`,
    /// and `result` of its first annotation.
    ///
    /// # Errors
    /// `unreadable_record`.
    pub fn parse_json(line: &'a str) -> Result<Self, Diagnostic> {
        let line = line.trim();
        if line.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('\'')) {
            return Err(python_literal());
        }
        if line.starts_with('{') {
            let fields: JsonFields = serde_json::from_str(line).map_err(|error| invalid_json(&error))?;
            return Ok(Self::label_studio_task(&fields).unwrap_or_else(|| Self::from_json_fields(fields)));
        }
        Self::spacy_example(line).ok_or_else(|| not_an_object(line))
    }

    /// Record of a table, from names of columns and their cells.
    pub fn from_cells(cells: impl IntoIterator<Item = (&'a str, Cow<'a, str>)>) -> Self {
        let fields = cells.into_iter().map(|(name, cell)| (Cow::Borrowed(name), FieldValue::Cell(cell)));
        Self { fields: fields.collect(), ..Self::default() }
    }

    fn from_json_fields(fields: JsonFields<'a>) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (name, FieldValue::Json(value)));
        Self { fields: fields.collect(), ..Self::default() }
    }

    fn spacy_example(line: &'a str) -> Option<Self> {
        let (text, annotations): (&RawValue, JsonFields) = serde_json::from_str(line).ok()?;
        let mut record = Self::from_json_fields(annotations);
        record.fields.insert(Cow::Borrowed("text"), FieldValue::Json(text));
        text.get().starts_with('"').then_some(record)
    }

    fn label_studio_task(fields: &JsonFields<'a>) -> Option<Self> {
        let annotations = fields.get("annotations").or_else(|| fields.get("completions"))?;
        let annotations: Vec<JsonFields> = serde_json::from_str(annotations.get()).ok()?;
        let mut record = Self::from_json_fields(serde_json::from_str(fields.get("data")?.get()).ok()?);
        let is_cancelled =
            |annotation: &JsonFields| annotation.get("was_cancelled").is_some_and(|value| value.get() == "true");
        let mut finished = annotations.iter().filter(|annotation| !is_cancelled(annotation));
        let result = finished.next().map(|first| first.get("result"));
        record.has_several_annotations = finished.next().is_some();
        match result.flatten() {
            Some(result) => _ = record.fields.insert(Cow::Borrowed(ANNOTATION_RESULT), FieldValue::Json(result)),
            None => record.is_unannotated = true,
        }
        Some(record)
    }

    /// Fields in the order of their names.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &FieldValue<'a>)> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Value of a field that is present and not null.
    pub fn get(&self, column: &str) -> Option<&FieldValue<'a>> {
        self.fields.get(column).filter(|value| !value.is_null())
    }

    /// Whether the field is present, if only as null.
    pub fn contains(&self, column: &str) -> bool {
        self.fields.contains_key(column)
    }

    /// # Errors
    /// `missing_field` for a field that is absent or null.
    pub fn required(&self, field: &str, column: &str) -> Result<&FieldValue<'a>, Diagnostic> {
        self.get(column).ok_or_else(|| self.missing_field(field, column))
    }

    pub fn missing_field(&self, field: &str, column: &str) -> Diagnostic {
        if self.contains(column) {
            let message = format!("the field {} is null: fill it in, or leave the row out", quote(column));
            return Diagnostic::new(diagnostics::MISSING_FIELD, message);
        }
        let fields = match self.fields.is_empty() {
            true => "none".to_string(),
            false => quote_list(self.fields().map(|(name, _)| name)),
        };
        let message = format!(
            "the object has no {}; its fields are {fields}. {}",
            quote(column),
            super::column_names::mapping_hint(field)
        );
        Diagnostic::new(diagnostics::MISSING_FIELD, message)
    }
}

fn python_literal() -> Diagnostic {
    let message = "the line is a Python literal with single quotes, which is not JSON: write it with `json.dumps`";
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, message)
}

fn not_an_object(line: &str) -> Diagnostic {
    let message = match line.chars().next() {
        Some('[') => "the line holds a JSON list: write its objects one to a line",
        _ => "the line is not a JSON object like {\"text\": \"…\", \"label\": \"…\"}",
    };
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(line: &str, field: &str) -> Option<String> {
        let record = Record::parse_json(line).unwrap();
        record.get(field).map(|value| value.as_text(field).map_or_else(|_| "no text".to_string(), Cow::into_owned))
    }

    #[test]
    fn exports_of_annotation_tools_become_fields() {
        let spacy = r#"["Riga", {"entities": [[0, 4, "city"]]}]"#;
        assert_eq!(text_of(spacy, "text").as_deref(), Some("Riga"));
        assert!(Record::parse_json(spacy).unwrap().contains("entities"));
        let task = r#"{"id": 1, "data": {"text": "Riga"}, "annotations": [{"was_cancelled": true, "result": []},
            {"result": [{"value": {"start": 0, "end": 4, "labels": ["city"]}}]}]}"#;
        let task = Record::parse_json(task).unwrap();
        assert_eq!(task.fields().map(|(name, _)| name).collect::<Vec<_>>(), ["result", "text"]);
        assert!(!task.is_unannotated);
        assert!(Record::parse_json(r#"{"data": {"text": "Riga"}, "annotations": []}"#).unwrap().is_unannotated);
        // Fields of these names that no tool has written are kept.
        assert_eq!(text_of(r#"{"data": "a", "annotations": []}"#, "data").as_deref(), Some("a"));
    }

    #[test]
    fn other_values_are_refused() {
        for line in ["7", "[1, 2]", "[\"a\"]", "{", "[7, {}]"] {
            assert_eq!(Record::parse_json(line).unwrap_err().code, "unreadable_record", "{line}");
        }
    }
}
