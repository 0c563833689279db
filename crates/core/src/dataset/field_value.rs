//! Value of a record's field: its checks and conversions.

use super::diagnostics::{self, Diagnostic, quote};
use super::list_text::{ListItem, parse_list};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// JSON value that is not parsed yet, or the cell of a table.
#[derive(Debug, Clone)]
pub(super) enum FieldValue<'a> {
    Json(&'a RawValue),
    Cell(Cow<'a, str>),
}

impl<'a> FieldValue<'a> {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Json(value) if value.get() == "null")
    }

    /// Value as it is written.
    pub fn source(&self) -> &str {
        match self {
            Self::Json(value) => value.get(),
            Self::Cell(cell) => cell,
        }
    }

    /// # Errors
    /// `wrong_type` for a JSON value that is not a string.
    pub fn as_text(&self, field: &str) -> Result<Cow<'_, str>, Diagnostic> {
        match self {
            Self::Json(value) => string_value(value, field),
            Self::Cell(cell) => Ok(Cow::Borrowed(cell)),
        }
    }

    /// List or object: a JSON value, or a text that holds one.
    pub fn as_structure(&self) -> Option<Cow<'_, RawValue>> {
        let text = match self {
            Self::Json(value) if value.get().starts_with(['[', '{']) => return Some(Cow::Borrowed(value)),
            Self::Json(value) if value.get().starts_with('"') => string_value(value, "").ok()?,
            Self::Json(_) => return None,
            Self::Cell(cell) => Cow::Borrowed(cell.as_ref()),
        };
        let text = text.trim();
        if !text.starts_with(['[', '{']) {
            return None;
        }
        serde_json::from_str::<Box<RawValue>>(text).ok().map(Cow::Owned)
    }

    /// Label: a text, or a number or boolean as it is written.
    pub fn as_label(&self, description: &str) -> Result<Cow<'_, str>, Diagnostic> {
        match self {
            Self::Json(value) => label_value(value, description),
            Self::Cell(cell) => Ok(Cow::Borrowed(cell)),
        }
    }

    /// Items of a list: JSON, or a text in the notation of JSON, Python or NumPy. `None` for other texts.
    pub fn as_label_list(&self, field: &str) -> Result<Option<Vec<Cow<'_, str>>>, Diagnostic> {
        let text = match self {
            Self::Json(value) if !value.get().starts_with('"') => return label_list(value, field).map(Some),
            Self::Json(value) => string_value(value, field)?,
            Self::Cell(cell) => Cow::Borrowed(cell.as_ref()),
        };
        Ok(parse_list(&text).map(|items| items.into_iter().map(|item| Cow::Owned(item.text)).collect()))
    }

    /// Whether the value is a list, or a text in the notation of one.
    pub fn is_list_notation(&self) -> bool {
        match self {
            Self::Json(value) if !value.get().starts_with('"') => value.get().starts_with('['),
            value => value.as_text("").is_ok_and(|text| parse_list(&text).is_some()),
        }
    }

    /// Words of a text, or their tags: a list, or the cell of a table in which white space separates them. `read_item` reads an item of
    /// a JSON list.
    pub fn as_words(
        &self,
        field: &str,
        read_item: impl for<'v> Fn(&'v RawValue, &str) -> Result<Cow<'v, str>, Diagnostic>,
    ) -> Result<Vec<Cow<'_, str>>, Diagnostic> {
        // Brackets may be words of the text.
        let is_list_notation =
            |items: &Vec<ListItem>| items.iter().all(|item| item.is_quoted || item.text.parse::<f64>().is_ok());
        let listed = |text: &str| {
            let items = parse_list(text).filter(is_list_notation)?;
            Some(items.into_iter().map(|item| Cow::Owned(item.text)).collect())
        };
        match self {
            Self::Cell(cell) => {
                Ok(listed(cell).unwrap_or_else(|| cell.split_whitespace().map(Cow::Borrowed).collect()))
            }
            Self::Json(value) => {
                let text = if value.get().starts_with('"') { string_value(value, field)? } else { Cow::Borrowed("") };
                match listed(&text) {
                    Some(words) => Ok(words),
                    None => list_items(value, field)?.into_iter().map(|item| read_item(item, field)).collect(),
                }
            }
        }
    }

    /// Boolean: true, false, 1 or 0, or a text of these.
    pub fn as_flag(&self) -> Option<bool> {
        match self.source().trim_matches('"').trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "1.0" => Some(true),
            "false" | "0" | "0.0" => Some(false),
            _ => None,
        }
    }

    /// Name of the type for messages, with its article.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Json(value) => json_type_name(value),
            Self::Cell(_) => "a text",
        }
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
    list_items(value, field)?.into_iter().map(|item| label_item(item, field)).collect()
}

/// Label in a list.
pub(super) fn label_item<'a>(item: &'a RawValue, field: &str) -> Result<Cow<'a, str>, Diagnostic> {
    label_value(item, &format!("an item of `{field}`"))
}

pub(super) fn list_items<'a>(value: &'a RawValue, field: &str) -> Result<Vec<&'a RawValue>, Diagnostic> {
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

pub(super) fn number_expected(field: &str, text: &str) -> Diagnostic {
    wrong_type(format!("`{field}` is {}, and has to be a number such as 3.5", quote(text)))
}

pub(super) fn invalid_json(error: &serde_json::Error) -> Diagnostic {
    let parser_message = error.to_string();
    // The parser counts lines and columns within the record, so its "at line 1" is left out.
    let reason = parser_message.split(" at line ").next().unwrap_or_default();
    let message = format!("the line is not valid JSON (near its byte {}): {reason}", error.column());
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, message)
}
