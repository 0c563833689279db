//! Fields of a JSON object, with checks of their types.

use super::column_mapping::{ColumnMapping, SecondTextColumn, mapping_hint};
use super::diagnostics::{self, Diagnostic, quote, quote_list};
use super::row::RowErrors;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// JSON object whose values are not parsed yet.
pub(super) struct JsonObject<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

/// The fields that a row schema reads.
pub(super) struct JsonFields<'a> {
    pub text: &'a RawValue,
    pub second_text: Option<Cow<'a, str>>,
    pub target: &'a RawValue,
}

impl<'a> JsonObject<'a> {
    pub fn parse(line: &'a str) -> Result<Self, Diagnostic> {
        let line = line.trim();
        if !line.starts_with('{') {
            return Err(not_an_object(line));
        }
        if line[1..].trim_start().starts_with('\'') {
            return Err(python_literal());
        }
        serde_json::from_str(line).map(Self).map_err(|error| invalid_json(&error))
    }

    /// Names of the fields, sorted.
    pub fn field_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }

    /// Value of a field that is present and not null.
    pub fn get(&self, column: &str) -> Option<&'a RawValue> {
        self.0.get(column).copied().filter(|value| value.get() != "null")
    }

    /// # Errors
    /// `missing_field` for a field that is absent or null.
    pub fn required(&self, field: &str, column: &str) -> Result<&'a RawValue, Diagnostic> {
        self.get(column).ok_or_else(|| self.missing_field(field, column))
    }

    /// Fields of the mapping's schema, or the errors of all of them.
    pub fn fields(&self, mapping: &ColumnMapping) -> Result<JsonFields<'a>, RowErrors> {
        let text = self.required(mapping.schema.text_field(), &mapping.text_column);
        let second_text = mapping.second_text.as_ref().map(|column| self.second_text(column)).transpose();
        let target = self.required(mapping.schema.target_field(), &mapping.target_column);
        match (text, second_text, target) {
            (Ok(text), Ok(second_text), Ok(target)) => {
                Ok(JsonFields { text, second_text: second_text.flatten(), target })
            }
            (text, second_text, target) => {
                Err([text.err(), second_text.err(), target.err()].into_iter().flatten().collect())
            }
        }
    }

    fn second_text(&self, column: &SecondTextColumn) -> Result<Option<Cow<'a, str>>, Diagnostic> {
        if column.is_required && !self.0.contains_key(column.column.as_str()) {
            return Err(self.missing_field(column.field, &column.column));
        }
        self.get(&column.column).map(|value| string_value(value, column.field)).transpose()
    }

    fn missing_field(&self, field: &str, column: &str) -> Diagnostic {
        let absence = if self.0.contains_key(column) { "a null for" } else { "no" };
        let message = format!(
            "the object has {absence} {}; its fields are {}. {}",
            quote(column),
            if self.0.is_empty() { "none".to_string() } else { quote_list(self.field_names()) },
            mapping_hint(field)
        );
        Diagnostic::new(diagnostics::MISSING_FIELD, message)
    }
}

pub(super) fn string_value<'a>(value: &'a RawValue, field: &str) -> Result<Cow<'a, str>, Diagnostic> {
    if !value.get().starts_with('"') {
        return Err(wrong_type(format!("`{field}` is {}, and has to be a string", json_type_name(value))));
    }
    // A string without escapes is borrowed.
    match value.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(content) if !content.contains('\\') => Ok(Cow::Borrowed(content)),
        _ => serde_json::from_str(value.get()).map(Cow::Owned).map_err(|error| invalid_json(&error)),
    }
}

/// Number, or string that contains one.
pub(super) fn number_value(value: &RawValue, field: &str) -> Result<f64, Diagnostic> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{' | b't' | b'f') => {
            let type_name = json_type_name(value);
            Err(wrong_type(format!("`{field}` is {type_name}, and has to be a number such as 3.5")))
        }
        Some(b'"') => parse_number(field, &string_value(value, field)?),
        _ => parse_number(field, value.get()),
    }
}

/// Finite number within the range of `f32`.
pub(super) fn parse_number(field: &str, text: &str) -> Result<f64, Diagnostic> {
    let parsed =
        text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && value.abs() <= f64::from(f32::MAX));
    parsed.ok_or_else(|| wrong_type(format!("`{field}` is {}, and has to be a number such as 3.5", quote(text))))
}

/// Label: a string, or the text of a number or boolean as it is written.
pub(super) fn label_value<'a>(value: &'a RawValue, description: &str) -> Result<Cow<'a, str>, Diagnostic> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{' | b'n') => {
            let type_name = json_type_name(value);
            Err(wrong_type(format!("{description} is {type_name}, and has to be a string, a number, true or false")))
        }
        Some(b'"') => string_value(value, description),
        _ => Ok(Cow::Borrowed(value.get())),
    }
}

pub(super) fn label_list<'a>(value: &'a RawValue, field: &str) -> Result<Vec<Cow<'a, str>>, Diagnostic> {
    let description = format!("an item of `{field}`");
    list_items(value, field)?.into_iter().map(|item| label_value(item, &description)).collect()
}

pub(super) fn string_list<'a>(value: &'a RawValue, field: &str) -> Result<Vec<Cow<'a, str>>, Diagnostic> {
    list_items(value, field)?.into_iter().map(|item| string_value(item, field)).collect()
}

fn list_items<'a>(value: &'a RawValue, field: &str) -> Result<Vec<&'a RawValue>, Diagnostic> {
    if !value.get().starts_with('[') {
        let type_name = json_type_name(value);
        return Err(wrong_type(format!(
            "`{field}` is {type_name}, and has to be a list of {field}, if only an empty one"
        )));
    }
    serde_json::from_str(value.get()).map_err(|error| invalid_json(&error))
}

/// Name of a value's type for messages, with its article.
pub(super) fn json_type_name(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

pub(super) fn wrong_type(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(diagnostics::WRONG_TYPE, message)
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

fn invalid_json(error: &serde_json::Error) -> Diagnostic {
    let parser_message = error.to_string();
    // The parser counts lines and columns within the record, so its "at line 1" is left out.
    let reason = parser_message.split(" at line ").next().unwrap_or_default();
    let message = format!("the line is not valid JSON (near its byte {}): {reason}", error.column());
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, message)
}
