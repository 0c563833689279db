//! JSON lines: one object per line. What makes a text or a label good is not known here.

use super::column_mapping::{ColumnMapping, SecondTextColumn, mapping_hint};
use super::conversations;
use super::diagnostics::{self, Diagnostic, quote, quote_list};
use super::entities;
use super::line_source::{LineSource, trim_line_ending};
use super::row::{ParsedRow, RawTarget, RowFields, RowReader, decode_utf8, parse_number, record_too_long};
use crate::task::RowSchema;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

pub(super) struct JsonlReader {
    source: LineSource,
    mapping: ColumnMapping,
    max_record_bytes: usize,
    buffer: Vec<u8>,
}

impl JsonlReader {
    pub fn new(source: LineSource, mapping: ColumnMapping, max_record_bytes: usize) -> Self {
        Self { source, mapping, max_record_bytes, buffer: Vec::new() }
    }

    /// Reads the next line that is not blank. Answers its number and whether it fitted.
    fn read_line(&mut self) -> io::Result<Option<(u64, LineLength)>> {
        loop {
            self.buffer.clear();
            let line = self.source.position().line;
            while self.source.position().line == line {
                if self.source.read_chunk(&mut self.buffer)? == 0 {
                    break;
                }
                if trim_line_ending(&self.buffer).len() > self.max_record_bytes {
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

enum LineLength {
    WithinLimit,
    TooLong,
}

impl RowReader for JsonlReader {
    fn next_row(&mut self) -> io::Result<Option<ParsedRow<'_>>> {
        Ok(match self.read_line()? {
            None => None,
            Some((line, LineLength::TooLong)) => Some(ParsedRow::invalid(line, record_too_long(self.max_record_bytes))),
            Some((line, LineLength::WithinLimit)) => Some(match decode_utf8(&self.buffer, line, &self.source) {
                Ok(text) => ParsedRow { line, fields: parse_row(text, &self.mapping) },
                Err(flaw) => ParsedRow::invalid(line, flaw),
            }),
        })
    }
}

/// Values stay as they were written until it is known which ones are needed, and as what.
type JsonObject<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn parse_row<'a>(line: &'a str, mapping: &ColumnMapping) -> Result<RowFields<'a>, Vec<Diagnostic>> {
    let line = line.trim();
    if !line.starts_with('{') {
        return Err(vec![not_an_object(line)]);
    }
    let object: JsonObject<'a> = serde_json::from_str(line).map_err(|error| vec![invalid_json(&error)])?;
    if mapping.schema == RowSchema::Messages {
        let messages = required_field(&object, mapping.schema.target_field(), &mapping.target_column)
            .map_err(|flaw| vec![flaw])?;
        let tools = object.get("tools").filter(|tools| tools.get() != "null").copied();
        let conversation = conversations::parse_conversation(messages, tools).map_err(|flaw| vec![flaw])?;
        return Ok(RowFields::new(Cow::Borrowed(messages.get()), None, RawTarget::Conversation(conversation)));
    }
    if mapping.schema == RowSchema::Chosen
        && let Some(preference) = conversations::PreferenceRow::from_row(|name| object.get(name).copied(), mapping)
    {
        return preference.into_fields().map_err(|flaw| vec![flaw]);
    }
    let text = required_field(&object, mapping.schema.text_field(), &mapping.text_column);
    let target = required_field(&object, mapping.schema.target_field(), &mapping.target_column);
    let second_text =
        mapping.second_text.as_ref().map(|second| self::optional_second_text(&object, second)).transpose();
    match (text, second_text, target) {
        (Ok(text), Ok(second), Ok(target)) => to_fields(mapping.schema, text, second.flatten(), target),
        (text, second, target) => Err([text.err(), second.err(), target.err()].into_iter().flatten().collect()),
    }
}

/// Everything that is wrong with them, or what they say.
fn to_fields<'a>(
    schema: RowSchema,
    text: &'a RawValue,
    second_text: Option<Cow<'a, str>>,
    target: &'a RawValue,
) -> Result<RowFields<'a>, Vec<Diagnostic>> {
    let to_vec = |flaw: Diagnostic| vec![flaw];
    match schema {
        RowSchema::Tags => {
            let (tokens, tags) = (string_list(text, "tokens"), class_list(target, "tags"));
            let (Ok(tokens), Ok(tags)) = (&tokens, &tags) else {
                return Err([tokens.err(), tags.err()].into_iter().flatten().collect());
            };
            RowFields::from_tagged_tokens(tokens, tags.clone()).map_err(to_vec)
        }
        RowSchema::Entities => {
            let text = string_value(text, schema.text_field()).map_err(to_vec)?;
            let entities = serde_json::from_str(target.get()).map_err(|_| to_vec(invalid_entities(target)))?;
            let entities::BioTags { word_spans: words, tags, warning } =
                entities::to_bio_tags(&text, entities).map_err(to_vec)?;
            Ok(RowFields { warning, ..RowFields::new(text, None, RawTarget::Tags { word_spans: words, tags }) })
        }
        _ => match (string_value(text, schema.text_field()), parse_target(target, schema)) {
            (Ok(text), Ok(target)) => Ok(RowFields::new(text, second_text, target)),
            (text, target) => Err([text.err(), target.err()].into_iter().flatten().collect()),
        },
    }
}

fn optional_second_text<'a>(
    object: &JsonObject<'a>,
    column: &SecondTextColumn,
) -> Result<Option<Cow<'a, str>>, Diagnostic> {
    let raw_value = object.get(column.column.as_str()).copied();
    if raw_value.is_none() && column.is_required {
        return Err(missing_field(object, column.field, &column.column));
    }
    raw_value.filter(|value| value.get() != "null").map(|value| string_value(value, column.field)).transpose()
}

fn required_field<'a>(object: &JsonObject<'a>, field: &str, column: &str) -> Result<&'a RawValue, Diagnostic> {
    match object.get(column) {
        Some(value) if value.get() != "null" => Ok(*value),
        _ => Err(missing_field(object, field, column)),
    }
}

fn string_value<'a>(value: &'a RawValue, field: &str) -> Result<Cow<'a, str>, Diagnostic> {
    if !value.get().starts_with('"') {
        let message = format!("`{field}` is {}, and has to be a string", json_type_name(value));
        return Err(Diagnostic::new(diagnostics::WRONG_TYPE, message));
    }
    // Without an escape the content stands between the quotes as it is.
    match value.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(content) if !content.contains('\\') => Ok(Cow::Borrowed(content)),
        _ => serde_json::from_str(value.get()).map(Cow::Owned).map_err(|error| invalid_json(&error)),
    }
}

fn parse_target(value: &RawValue, schema: RowSchema) -> Result<RawTarget<'_>, Diagnostic> {
    let field = schema.target_field();
    match schema {
        RowSchema::Label => class_value(value, "`label`").map(RawTarget::Label),
        RowSchema::Labels => class_list(value, field).map(RawTarget::Labels),
        RowSchema::Positive => string_value(value, field).map(RawTarget::Positive),
        RowSchema::Value => number_value(value, field).map(RawTarget::Value),
        RowSchema::Score => number_value(value, field).map(RawTarget::Score),
        RowSchema::Text => Ok(RawTarget::Text),
        RowSchema::Completion => string_value(value, field).map(RawTarget::Completion),
        RowSchema::Chosen => string_value(value, field).map(RawTarget::Chosen),
        RowSchema::Tags | RowSchema::Entities | RowSchema::Messages => unreachable!("they are read with their text"),
    }
}

fn number_value(value: &RawValue, field: &str) -> Result<f64, Diagnostic> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{' | b't' | b'f') => {
            let message = format!("`{field}` is {}, and has to be a number such as 3.5", json_type_name(value));
            Err(Diagnostic::new(diagnostics::WRONG_TYPE, message))
        }
        Some(b'"') => parse_number(field, &string_value(value, field)?),
        _ => parse_number(field, value.get()),
    }
}

/// Of classes.
fn class_list<'a>(value: &'a RawValue, field: &str) -> Result<Vec<Cow<'a, str>>, Diagnostic> {
    let description = format!("an item of `{field}`");
    array_items(value, field)?.into_iter().map(|item| class_value(item, &description)).collect()
}

fn string_list<'a>(value: &'a RawValue, field: &str) -> Result<Vec<Cow<'a, str>>, Diagnostic> {
    array_items(value, field)?.into_iter().map(|item| string_value(item, field)).collect()
}

fn array_items<'a>(value: &'a RawValue, field: &str) -> Result<Vec<&'a RawValue>, Diagnostic> {
    if !value.get().starts_with('[') {
        let message =
            format!("`{field}` is {}, and has to be a list of {field}, if only an empty one", json_type_name(value));
        return Err(Diagnostic::new(diagnostics::WRONG_TYPE, message));
    }
    serde_json::from_str(value.get()).map_err(|error| invalid_json(&error))
}

fn invalid_entities(value: &RawValue) -> Diagnostic {
    let actual_type = if value.get().starts_with('[') {
        "a list of something else".to_string()
    } else {
        json_type_name(value).to_string()
    };
    let message = format!(
        "`entities` is {actual_type}, and has to be a list of objects like {{\"start\": 0, \"end\": 5, \"label\": \"city\"}}"
    );
    Diagnostic::new(diagnostics::WRONG_TYPE, message)
}

/// A label is a class, also where it looks like a number: its text counts.
fn class_value<'a>(value: &'a RawValue, description: &str) -> Result<Cow<'a, str>, Diagnostic> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{' | b'n') => {
            let message =
                format!("{description} is {}, and has to be a string, a number, true or false", json_type_name(value));
            Err(Diagnostic::new(diagnostics::WRONG_TYPE, message))
        }
        Some(b'"') => string_value(value, description),
        _ => Ok(Cow::Borrowed(value.get())),
    }
}

fn json_type_name(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn missing_field(object: &JsonObject<'_>, field: &str, column: &str) -> Diagnostic {
    let absence = if object.contains_key(column) { "a null for" } else { "no" };
    let present_fields: Vec<&str> = object.keys().map(AsRef::as_ref).collect();
    let message = format!(
        "the object has {absence} {}; its fields are {}. {}",
        quote(column),
        if present_fields.is_empty() { "none".to_string() } else { quote_list(present_fields.into_iter()) },
        mapping_hint(field)
    );
    Diagnostic::new(diagnostics::MISSING_FIELD, message)
}

fn not_an_object(line: &str) -> Diagnostic {
    let advice = match line.chars().next() {
        Some('[') => "the line holds a JSON list: write its objects one to a line",
        _ => "the line is not a JSON object like {\"text\": \"…\", \"label\": \"…\"}",
    };
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, advice)
}

fn invalid_json(error: &serde_json::Error) -> Diagnostic {
    let parser_message = error.to_string();
    // The parser counts from the start of the line; its own "at line 1" would mislead.
    let reason = parser_message.split(" at line ").next().unwrap_or_default();
    let message = format!("the line is not valid JSON (near its byte {}): {reason}", error.column());
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, message)
}
