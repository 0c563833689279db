//! Text of a Parquet file's rows as JSON objects.

use super::class_labels::ClassLabels;
use parquet::record::{Field, Row};

/// A row as the text of a JSON object.
///
/// # Errors
/// The bytes of a text that has more than `max_bytes`, or that it has at least.
pub(super) fn row_text(row: &Row, labels: &ClassLabels, max_bytes: usize) -> Result<String, usize> {
    // Long texts are not copied.
    let least_bytes = row.get_column_iter().map(|(_, field)| least_bytes(field)).sum();
    if least_bytes > max_bytes {
        return Err(least_bytes);
    }
    let mut text = String::from("{");
    for (index, (name, field)) in row.get_column_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_string(&mut text, name);
        text.push(':');
        push_field(&mut text, field, labels.names(name));
    }
    text.push('}');
    if text.len() > max_bytes { Err(text.len()) } else { Ok(text) }
}

/// Bytes that a value takes at least in the text of its row.
fn least_bytes(field: &Field) -> usize {
    match field {
        Field::Str(value) => value.len(),
        Field::Group(row) => row.get_column_iter().map(|(_, field)| least_bytes(field)).sum(),
        Field::ListInternal(list) => list.elements().iter().map(least_bytes).sum(),
        Field::MapInternal(map) => map.entries().iter().map(|(key, value)| least_bytes(key) + least_bytes(value)).sum(),
        _ => 1,
    }
}

/// Appends a value as JSON. Integers with names are written as these, and bytes that are no text as null.
fn push_field(text: &mut String, field: &Field, names: Option<&[String]>) {
    if let Some(names) = names
        && let Some(class) = integer(field)
    {
        // A class below 0 says that there is none.
        match usize::try_from(class).ok().map(|class| names.get(class)) {
            None => text.push_str("null"),
            Some(Some(name)) => push_string(text, name),
            Some(None) => text.push_str(&class.to_string()),
        }
        return;
    }
    match field {
        Field::Null => text.push_str("null"),
        Field::Float16(value) if !value.is_finite() => text.push_str("null"),
        Field::Float(value) if !value.is_finite() => text.push_str("null"),
        Field::Double(value) if !value.is_finite() => text.push_str("null"),
        Field::Float16(value) => text.push_str(&value.to_string()),
        Field::Float(value) => text.push_str(&value.to_string()),
        Field::Double(value) => text.push_str(&value.to_string()),
        Field::UByte(value) => text.push_str(&value.to_string()),
        Field::UShort(value) => text.push_str(&value.to_string()),
        Field::UInt(value) => text.push_str(&value.to_string()),
        Field::ULong(value) => text.push_str(&value.to_string()),
        Field::Byte(_) | Field::Short(_) | Field::Int(_) | Field::Long(_) | Field::Bool(_) | Field::Decimal(_) => {
            text.push_str(&field.to_string());
        }
        Field::Str(value) => push_string(text, value),
        Field::Bytes(value) => match value.as_utf8() {
            Ok(value) => push_string(text, value),
            Err(_) => text.push_str("null"),
        },
        Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => {
            push_string(text, &field.to_string());
        }
        Field::Group(row) => push_members(text, '{', row.get_column_iter(), |text, (name, field)| {
            push_string(text, name);
            text.push(':');
            push_field(text, field, None);
        }),
        Field::ListInternal(list) => {
            push_members(text, '[', list.elements().iter(), |text, field| push_field(text, field, names));
        }
        Field::MapInternal(map) => push_members(text, '{', map.entries().iter(), |text, (key, field)| {
            let name = if let Field::Str(name) = key { name.clone() } else { key.to_string() };
            push_string(text, &name);
            text.push(':');
            push_field(text, field, None);
        }),
    }
}

fn push_members<T>(
    text: &mut String,
    opening: char,
    members: impl Iterator<Item = T>,
    mut push: impl FnMut(&mut String, T),
) {
    text.push(opening);
    for (index, member) in members.enumerate() {
        if index > 0 {
            text.push(',');
        }
        push(text, member);
    }
    text.push(if opening == '{' { '}' } else { ']' });
}

fn push_string(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

fn integer(field: &Field) -> Option<i64> {
    match field {
        Field::Byte(value) => Some(i64::from(*value)),
        Field::Short(value) => Some(i64::from(*value)),
        Field::Int(value) => Some(i64::from(*value)),
        Field::Long(value) => Some(*value),
        _ => None,
    }
}
