//! The JSON files of AdapterHub: the object `config` inside an envelope.

use crate::adapter::file_errors::invalid_file;
use crate::error::{Context, Error, Result};
use serde_json::{Map, Value};

pub fn parse_object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|error| invalid_file(file, format!("it is not a JSON object ({error})")))
}

/// The object under `config`.
pub fn config_object<'a>(file: &str, fields: &'a Map<String, Value>) -> Result<&'a Map<String, Value>> {
    fields.get("config").and_then(Value::as_object).ok_or_else(|| {
        invalid_file(file, "config must be the object of all settings, as save_adapter of adapters 1.x writes it")
    })
}

/// Serializes with sorted keys, as `adapters` writes them.
pub fn to_sorted_json(mut value: Value) -> Result<Vec<u8>> {
    value.sort_all_objects();
    let mut bytes = serde_json::to_vec_pretty(&value).context("writing an AdapterHub config")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// An adapter that AdapterHub's format cannot express.
pub fn unsupported_format(what: &str) -> Error {
    let detail = format!("AdapterHub's form has nothing for {what}: download it as peft");
    Error::invalid("unsupported_format", detail)
}
