//! Kind of the values of a column, such as numbers, lists of texts, or spans of entities.

use super::field_value::FieldValue;
use super::list_text::parse_list;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No value.
    Empty,
    Text,
    Number,
    Bool,
    TextList,
    NumberList,
    /// Only empty lists.
    EmptyList,
    /// Entities: objects with offsets, or triples of start, end and label.
    Spans,
    /// Choices of an annotation tool.
    Choices,
    /// Message, list of messages, or object with `messages`.
    Messages,
    /// Object of labels with numbers or booleans, as spaCy's `cats`.
    Categories,
    /// Other lists and objects.
    Other,
    /// Texts beside lists or objects, or structures of different kinds.
    Various,
}

impl Kind {
    /// Common kind of all values.
    pub fn of_values<'a>(values: impl Iterator<Item = FieldValue<'a>>) -> Self {
        values.fold(Self::Empty, |kind, value| kind.merge(Self::of(&value)))
    }

    pub fn is_scalar(self) -> bool {
        matches!(self, Self::Text | Self::Number | Self::Bool)
    }

    pub fn is_list(self) -> bool {
        matches!(self, Self::TextList | Self::NumberList | Self::EmptyList)
    }

    pub fn of(value: &FieldValue<'_>) -> Self {
        if let Some(structure) = value.as_structure()
            && let Ok(structure) = serde_json::from_str(structure.get())
        {
            return Self::of_structure(&structure);
        }
        let Ok(text) = value.as_label("") else { return Self::Other };
        if let Some(items) = parse_list(&text) {
            let has_numbers = items.iter().all(|item| !item.is_quoted && is_number(&item.text));
            return if items.is_empty() { Self::EmptyList } else { list_kind(has_numbers) };
        }
        match value {
            FieldValue::Json(raw) if matches!(raw.get(), "true" | "false") => Self::Bool,
            _ if is_number(text.trim()) => Self::Number,
            _ => Self::Text,
        }
    }

    fn of_structure(value: &Value) -> Self {
        match value {
            Value::Array(items) if items.is_empty() => Self::EmptyList,
            Value::Array(items) if items.iter().all(|item| is_span(item) || is_relation(item)) => Self::Spans,
            Value::Array(items) if items.iter().all(has_choices) => Self::Choices,
            Value::Array(items) if items.iter().all(is_message) => Self::Messages,
            Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
                list_kind(items.iter().all(Value::is_number))
            }
            Value::Object(_) if has_choices(value) => Self::Choices,
            Value::Object(fields) if is_message(value) || fields.contains_key("messages") => Self::Messages,
            Value::Object(fields)
                if !fields.is_empty() && fields.values().all(|flag| flag.is_number() || flag.is_boolean()) =>
            {
                Self::Categories
            }
            _ => Self::Other,
        }
    }

    fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Empty, kind) | (kind, Self::Empty) => kind,
            (one, other) if one == other => one,
            (
                Self::EmptyList,
                list @ (Self::TextList | Self::NumberList | Self::Spans | Self::Choices | Self::Messages),
            )
            | (
                list @ (Self::TextList | Self::NumberList | Self::Spans | Self::Choices | Self::Messages),
                Self::EmptyList,
            ) => list,
            (one, other) if one.is_scalar() && other.is_scalar() => Self::Text,
            (one, other) if one.is_list() && other.is_list() => Self::TextList,
            _ => Self::Various,
        }
    }
}

fn list_kind(has_numbers: bool) -> Kind {
    if has_numbers { Kind::NumberList } else { Kind::TextList }
}

fn is_number(text: &str) -> bool {
    text.contains(|character: char| character.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

fn is_message(item: &Value) -> bool {
    item.get("role").or_else(|| item.get("from")).is_some_and(Value::is_string)
}

/// Whether an item is an entity of one of the forms that `spans` reads.
fn is_span(item: &Value) -> bool {
    match item {
        Value::Array(triple) => {
            matches!(triple.as_slice(), [start, end, label] if start.is_u64() && end.is_u64() && label.is_string())
        }
        Value::Object(fields) => {
            let has_offsets = |fields: &serde_json::Map<String, Value>| {
                fields.contains_key("start") || fields.contains_key("start_offset")
            };
            has_offsets(fields) || fields.get("value").and_then(Value::as_object).is_some_and(has_offsets)
        }
        _ => false,
    }
}

/// Whether an item of a Label Studio annotation relates two others.
pub(super) fn is_relation(item: &Value) -> bool {
    item.get("from_id").is_some() && item.get("to_id").is_some()
}

fn has_choices(item: &Value) -> bool {
    item.get("choices").or_else(|| item.get("value")?.get("choices")).is_some_and(Value::is_array)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(values: &[&str]) -> Kind {
        Kind::of_values(values.iter().map(|value| FieldValue::Cell((*value).into())))
    }

    #[test]
    fn values_have_a_common_kind() {
        for (values, kind) in [
            (&["a", "1"][..], Kind::Text),
            (&["1", "-2.5"], Kind::Number),
            (&["nan"], Kind::Text),
            (&["['a']", "[]"], Kind::TextList),
            (&["[1, 0]", "[0 1]"], Kind::NumberList),
            (&["[[0, 4, \"city\"]]", "[]"], Kind::Spans),
            (&["[{\"start_offset\": 0}]"], Kind::Spans),
            (&["[{\"value\": {\"start\": 0}}]"], Kind::Spans),
            (&["{\"choices\": [\"a\"]}"], Kind::Choices),
            (&["[{\"from\": \"human\"}]", "{\"role\": \"user\"}"], Kind::Messages),
            (&["{\"A\": 1.0, \"B\": 0}"], Kind::Categories),
            (&["a", "['a']"], Kind::Various),
            (&[], Kind::Empty),
        ] {
            assert_eq!(kind_of(values), kind, "{values:?}");
        }
    }
}
