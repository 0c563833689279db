//! JSON to a request, and from what is wrong with it to a position or a pointer (RFC 6901).
//!
//! serde reads a tagged choice (`{"type": "lora", …}`) in one piece and reports an error inside it at the choice itself.
//! [`find`] then leaves out one field after the other: the one without which the error goes away is the culprit.
//! Knows nothing of HTTP beyond the refusal.

use super::error::{ApiError, ApiResult};
use espalier_core::error::{Error, FieldError, Problem};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

/// A larger value is not searched: the search reads it once per field.
const MAX_SEARCHED_BYTES: usize = 64 * 1024;
const MAX_SEARCHED_FIELDS: usize = 32;

/// # Errors
/// 400 with line and column for what is no JSON; 422 with the pointer for what is not a `T`.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize(&mut reader) {
        // serde also takes a list for an object, its fields in their order; nobody means that
        Ok(_) if !body.trim_ascii_start().starts_with(b"{") => Err(invalid_body(&[], "must be an object")),
        Ok(value) => reader.end().map(|()| value).map_err(|error| malformed_json(body, &error)),
        Err(error) if error.inner().is_data() => Err(type_mismatch::<T>(body, BodyError::from(error))),
        Err(error) => Err(malformed_json(body, error.inner())),
    }
}

fn malformed_json(body: &[u8], error: &serde_json::Error) -> ApiError {
    let detail = match body.is_empty() {
        true => "the body is empty: send a JSON object".to_string(),
        false => format!("the body is not JSON: {error}"),
    };
    ApiError::bad_request("malformed_json", detail)
}

fn type_mismatch<T: DeserializeOwned>(body: &[u8], original: BodyError) -> ApiError {
    let BodyError { path, message } = match serde_json::from_slice::<Value>(body) {
        // a document that is only wrong as text, as with a field given twice, has the first error
        Ok(document) => locate_error::<T>(document).unwrap_or(original),
        Err(error) => return malformed_json(body, &error),
    };
    invalid_body(&path, &message)
}

fn invalid_body(path: &[String], message: &str) -> ApiError {
    let detail = match path.is_empty() {
        true => format!("the body: {message}"),
        false => format!("{}: {message}", path.join(".")),
    };
    let problem =
        Problem::new("invalid_body", detail).with_errors(vec![FieldError::at_pointer(pointer(path), message)]);
    Error::Invalid(problem).into()
}

/// For fields that hold an object: refuses the list that serde would take for one.
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
        Self { path: path.collect(), message: client_message(&error.inner().to_string()) }
    }
}

/// What serde says against this document, if anything.
fn body_error<T: DeserializeOwned>(document: &Value) -> Option<BodyError> {
    serde_path_to_error::deserialize::<_, T>(document).err().map(BodyError::from)
}

/// serde's words name our types; a client does not know them.
fn client_message(message: &str) -> String {
    if message.starts_with("data did not match any variant") {
        return "this value has none of the forms that are accepted here".to_string();
    }
    let Some((actual, expected)) = message.split_once(", expected ") else { return message.to_string() };
    match expected {
        "map with a single key" => "must be an object with exactly one field".to_string(),
        "a map" => format!("{actual}, expected an object"),
        "a sequence" => format!("{actual}, expected a list"),
        type_name if type_name.starts_with("struct ") => format!("{actual}, expected an object"),
        kind if kind.starts_with("internally tagged enum ") => {
            format!("{actual}, expected an object with a \"type\"")
        }
        _ => message.to_string(),
    }
}

/// The same, with the path taken into tagged choices.
fn locate_error<T: DeserializeOwned>(document: Value) -> Option<BodyError> {
    let mut error = body_error::<T>(&document)?;
    let Some(isolated) = isolate_field(document, &error) else { return Some(error) };
    if body_error::<T>(&isolated).as_ref() != Some(&error) {
        return Some(error);
    }
    let original = body_error::<T>(&isolated);
    loop {
        let fields = match isolated.pointer(&pointer(&error.path)) {
            Some(Value::Object(fields)) => fields,
            Some(Value::Array(items)) => {
                match find_array_item(&isolated, items.len(), &error.path, |remaining| {
                    body_error::<T>(remaining) != original
                }) {
                    Some(index) => {
                        error.path.push(index.to_string());
                        continue;
                    }
                    None => break,
                }
            }
            _ => break,
        };
        if fields.len() > MAX_SEARCHED_FIELDS {
            break;
        }
        let removes_error = |field: &&String| {
            let mut remaining = isolated.clone();
            if let Some(Value::Object(fields)) = remaining.pointer_mut(&pointer(&error.path)) {
                fields.remove(*field);
            }
            *field != "type" && body_error::<T>(&remaining) != original
        };
        let faulty_field = fields.keys().find(removes_error).cloned();
        let tag =
            || (fields.contains_key("type") && error.message.starts_with("unknown variant")).then(|| "type".into());
        match faulty_field.or_else(tag) {
            Some(field) => error.path.push(field),
            None => break,
        }
    }
    Some(error)
}

/// The first item of the list at this path without which the error goes away.
fn find_array_item(
    document: &Value,
    count: usize,
    path: &[String],
    removes_error: impl Fn(&Value) -> bool,
) -> Option<usize> {
    (0..count.min(MAX_SEARCHED_FIELDS)).find(|index| {
        let mut remaining = document.clone();
        if let Some(Value::Array(items)) = remaining.pointer_mut(&pointer(path)) {
            items.remove(*index);
        }
        removes_error(&remaining)
    })
}

/// The document with nothing but the wrong field, where that is small enough to be searched.
fn isolate_field(document: Value, error: &BodyError) -> Option<Value> {
    let field = error.path.first()?;
    let Value::Object(mut fields) = document else { return None };
    let value = fields.remove(field)?;
    let is_searchable = serde_json::to_string(&value).is_ok_and(|text| text.len() <= MAX_SEARCHED_BYTES);
    is_searchable.then(|| Value::Object([(field.clone(), value)].into_iter().collect()))
}

/// A JSON pointer to this path.
pub fn pointer(path: &[String]) -> String {
    path.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

#[cfg(test)]
mod tests;
