//! Parses JSON bodies and reports errors with a position or a JSON pointer (RFC 6901).
//!
//! serde buffers internally tagged enums (`{"type": "lora", …}`) and flattened structs, so an error inside one is reported at the object
//! around it. [`locate_error`] finds the field by removing one field at a time: the error is in the field whose removal changes it.

mod text;
pub mod wording;

pub use text::prepare;

use super::error::{ApiError, ApiResult};
use espalier_core::error::{Error, json_pointer};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

/// Larger values are not searched, because each step of the search deserializes the value once per field.
const MAX_SEARCHED_BYTES: usize = 64 * 1024;
const MAX_SEARCHED_FIELDS: usize = 32;

/// Parses a JSON object.
///
/// # Errors
/// 400 with line and column if the body is not JSON; 422 with a pointer if it is not a `T`.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize(&mut reader) {
        // serde also accepts a list of a struct's fields in their order, which is never intended.
        Ok(_) if !body.trim_ascii_start().starts_with(b"{") => Err(invalid_body(&[], "must be an object")),
        Ok(value) => reader.end().map(|()| value).map_err(|error| malformed_json(body, &error)),
        Err(error) if error.inner().is_data() => Err(type_mismatch::<T>(body, BodyError::from(error))),
        Err(error) => Err(malformed_json(body, error.inner())),
    }
}

fn malformed_json(body: &[u8], error: &serde_json::Error) -> ApiError {
    let detail = match std::str::from_utf8(body) {
        Ok("") => "the body is empty: send a JSON object".to_string(),
        Ok(_) => format!("the body is not JSON: {error}"),
        Err(invalid) => format!("the body is not UTF-8 from byte {} on: send UTF-8", invalid.valid_up_to()),
    };
    ApiError::bad_request("malformed_json", detail)
}

fn type_mismatch<T: DeserializeOwned>(body: &[u8], original: BodyError) -> ApiError {
    let BodyError { path, message } = match serde_json::from_slice::<Value>(body) {
        // A duplicate field is an error in the text only; the parsed document has none.
        Ok(document) => locate_error::<T>(document).unwrap_or(original),
        Err(error) => return malformed_json(body, &error),
    };
    invalid_body(&path, &wording::in_json_terms(&message))
}

fn invalid_body(path: &[String], message: &str) -> ApiError {
    Error::invalid_field(json_pointer(path), message).into()
}

/// Deserializes a field that holds an object; rejects the list that serde would accept.
pub fn deserialize_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(_) => Err(D::Error::custom("must be an object, not a list")),
        value => T::deserialize(value).map_err(D::Error::custom),
    }
}

#[derive(Debug, PartialEq)]
struct BodyError {
    path: Vec<String>,
    message: String,
}

impl From<serde_path_to_error::Error<serde_json::Error>> for BodyError {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error.path().iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Self { path: path.collect(), message: error.inner().to_string() }
    }
}

/// Deserializes the document and returns the error, if any.
fn body_error<T: DeserializeOwned>(document: &Value) -> Option<BodyError> {
    serde_path_to_error::deserialize::<_, T>(document).err().map(BodyError::from)
}

/// Deserializes the document and locates the error inside tagged enums.
fn locate_error<T: DeserializeOwned>(document: Value) -> Option<BodyError> {
    let original = body_error::<T>(&document)?;
    if original.path.is_empty()
        && let Some(field) = unknown_field(&original).filter(|field| document.get(field).is_some())
    {
        return Some(BodyError { path: vec![field.to_string()], ..original });
    }
    let has_same_error = |document: &Value| body_error::<T>(document).as_ref() == Some(&original);
    // Without the required fields the error may be another; then all of a small document is searched.
    let isolated = isolate_field(&document, &original).filter(has_same_error);
    let Some(searched) = isolated.or_else(|| Some(document).filter(is_searchable)) else { return Some(original) };
    let mut path = original.path.clone();
    while let Some(key) = faulty_child::<T>(&searched, &path, &original) {
        path.push(key);
    }
    Some(BodyError { path, ..original })
}

/// Returns the first field or item at `path` whose removal changes the error.
fn faulty_child<T: DeserializeOwned>(document: &Value, path: &[String], original: &BodyError) -> Option<String> {
    let parent = document.pointer(&json_pointer(path))?;
    let children: Vec<String> = match parent {
        Value::Object(fields) if fields.len() <= MAX_SEARCHED_FIELDS => fields.keys().cloned().collect(),
        Value::Array(items) => (0..items.len().min(MAX_SEARCHED_FIELDS)).map(|index| index.to_string()).collect(),
        _ => return None,
    };
    let changes_error = |child: &String| {
        let mut remaining = document.clone();
        match remaining.pointer_mut(&json_pointer(path)) {
            Some(Value::Object(fields)) => drop(fields.remove(child)),
            Some(Value::Array(items)) => drop(child.parse().map(|index: usize| items.remove(index))),
            _ => {}
        }
        let error = body_error::<T>(&remaining);
        // Without a required field of the document there is another error, wherever the original one is.
        let missing = format!("missing field `{child}`");
        let is_required = path.is_empty() && error.as_ref().is_some_and(|error| error.message.starts_with(&missing));
        child != "type" && !is_required && error.as_ref() != Some(original)
    };
    let has_unknown_tag = || parent.get("type").is_some() && original.message.starts_with("unknown variant");
    children.into_iter().find(changes_error).or_else(|| has_unknown_tag().then(|| "type".to_string()))
}

/// Document with only the top-level field of the error; `None` if the error is at no field, or the field is too large to search.
fn isolate_field(document: &Value, error: &BodyError) -> Option<Value> {
    let field = error.path.first()?;
    let value = document.as_object()?.get(field).filter(|value| is_searchable(value))?;
    Some(Value::Object([(field.clone(), value.clone())].into_iter().collect()))
}

fn is_searchable(value: &Value) -> bool {
    serde_json::to_string(value).is_ok_and(|text| text.len() <= MAX_SEARCHED_BYTES)
}

/// Name of the field that the object does not have.
fn unknown_field(error: &BodyError) -> Option<&str> {
    error.message.strip_prefix("unknown field `")?.split('`').next()
}

#[cfg(test)]
mod tests;
