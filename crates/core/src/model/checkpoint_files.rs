//! Reads the small files of a checkpoint.

use crate::error::{Context, Error, Result};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// Reads a JSON file of the base model.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) if it is no JSON, `Internal` if it cannot be read.
pub fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged_file_error(path, &error.to_string()))
}

/// Reads a JSON file that a checkpoint may lack; null without it.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) if it cannot be read.
pub fn read_optional_json(path: &Path) -> Result<Value> {
    let text = read_optional_text(path)?;
    let json = text.map_or(Ok(Value::Null), |text| serde_json::from_str(&text));
    json.map_err(|error| damaged_file_error(path, &error.to_string()))
}

/// Reads a text file that a checkpoint may lack.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) if it cannot be read.
pub fn read_optional_text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(damaged_file_error(path, &error.to_string())),
    }
}

/// `Invalid` (`base_model_damaged`) for a file that cannot be read.
pub fn damaged_file_error(file: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", file.display()))
}
