//! Readers of single fields of an `adapter_config.json`. An absent field and `null` mean PEFT's default.

use crate::adapter::file_errors::{CONFIG_FILE, invalid_file};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Whether the base's linear maps are stored as `(input, output)`.
pub const FAN_IN_FAN_OUT: &str = "fan_in_fan_out";

/// A malformed `adapter_config.json`.
pub fn invalid_config(reason: impl Display) -> Error {
    invalid_file(CONFIG_FILE, reason)
}

/// A required integer above 0.
pub fn positive_integer(fields: &Map<String, Value>, field: &str) -> Result<usize> {
    let number = fields.get(field).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| invalid_config(format!("{field} must be a positive integer")))
}

/// A boolean; false by default.
pub fn bool_field(fields: &Map<String, Value>, field: &str) -> Result<bool> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(invalid_config(format!("{field} must be true or false"))),
    }
}

pub fn f64_field(fields: &Map<String, Value>, field: &str) -> Result<Option<f64>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| invalid_config(format!("{field} must be a number"))),
    }
}

pub fn string_field(fields: &Map<String, Value>, field: &str) -> Result<Option<String>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid_config(format!("{field} must be a text"))),
    }
}

/// A dropout rate; 0 by default.
pub fn dropout_field(fields: &Map<String, Value>, field: &str) -> Result<f64> {
    let dropout = f64_field(fields, field)?.unwrap_or(0.0);
    match (0.0..1.0).contains(&dropout) {
        true => Ok(dropout),
        false => Err(invalid_config(format!("{field} must be at least 0 and less than 1"))),
    }
}

/// An object from names of modules to numbers above 0; empty by default.
pub fn pattern_field<T>(
    fields: &Map<String, Value>,
    field: &str,
    parse_value: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>> {
    let invalid_pattern =
        || invalid_config(format!("{field} must be an object from names of modules to numbers above 0"));
    match fields.get(field) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => {
            let parse_entry = |(name, value): (&String, &Value)| Some((name.clone(), parse_value(value)?));
            entries.iter().map(parse_entry).collect::<Option<_>>().ok_or_else(invalid_pattern)
        }
        Some(_) => Err(invalid_pattern()),
    }
}

/// Whether a field has a value that requests nothing: null, false, zero or empty.
pub fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// The message for a `bias` that is not implemented.
pub fn unsupported_bias(value: &Value) -> String {
    format!("bias is {value}, expected \"none\" or, for LoRA, \"lora_only\"")
}
