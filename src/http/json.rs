//! JSON to a request, and from what is wrong with it to a position or a pointer (RFC 6901).
//!
//! serde reads a tagged choice (`{"type": "lora", …}`) in one piece and reports an error inside it at the choice itself.
//! [`find`] then leaves out one field after the other: the one without which the error goes away is the culprit.
//! Knows nothing of HTTP beyond the refusal.

use super::error::{Answer, Refusal};
use espalier_core::error::{Error, Fault, Problem};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

/// A larger value is not searched: the search reads it once per field.
const MAX_SEARCHED_BYTES: usize = 64 * 1024;
const MAX_SEARCHED_FIELDS: usize = 32;

/// # Errors
/// 400 with line and column for what is no JSON; 422 with the pointer for what is not a `T`.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize(&mut reader) {
        // serde also takes a list for an object, its fields in their order; nobody means that
        Ok(_) if !body.trim_ascii_start().starts_with(b"{") => Err(refused(&[], "must be an object")),
        Ok(value) => reader.end().map(|()| value).map_err(|error| malformed(body, &error)),
        Err(error) if error.inner().is_data() => Err(unfit::<T>(body, Wrong::from(error))),
        Err(error) => Err(malformed(body, error.inner())),
    }
}

fn malformed(body: &[u8], error: &serde_json::Error) -> Refusal {
    let detail = match body.is_empty() {
        true => "the body is empty: send a JSON object".to_string(),
        false => format!("the body is not JSON: {error}"),
    };
    Refusal::unreadable("malformed_json", detail)
}

fn unfit<T: DeserializeOwned>(body: &[u8], first: Wrong) -> Refusal {
    let Wrong { path, message } = match serde_json::from_slice::<Value>(body) {
        // a document that is only wrong as text, as with a field given twice, has the first error
        Ok(document) => find::<T>(document).unwrap_or(first),
        Err(error) => return malformed(body, &error),
    };
    refused(&path, &message)
}

fn refused(path: &[String], message: &str) -> Refusal {
    let detail = match path.is_empty() {
        true => format!("the body: {message}"),
        false => format!("{}: {message}", path.join(".")),
    };
    let problem = Problem::new("invalid_body", detail).with_faults(vec![Fault::at_pointer(pointer(path), message)]);
    Error::Invalid(problem).into()
}

/// For fields that hold an object: refuses the list that serde would take for one.
pub fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(_) => Err(D::Error::custom("must be an object, not a list")),
        value => T::deserialize(value).map_err(D::Error::custom),
    }
}

#[derive(Debug, PartialEq)]
struct Wrong {
    path: Vec<String>,
    message: String,
}

impl From<serde_path_to_error::Error<serde_json::Error>> for Wrong {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error.path().iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Self { path: path.collect(), message: plain(&error.inner().to_string()) }
    }
}

/// What serde says against this document, if anything.
fn wrong<T: DeserializeOwned>(document: &Value) -> Option<Wrong> {
    serde_path_to_error::deserialize::<_, T>(document).err().map(Wrong::from)
}

/// serde's words name our types; a client does not know them.
fn plain(message: &str) -> String {
    if message.starts_with("data did not match any variant") {
        return "this value has none of the forms that are accepted here".to_string();
    }
    let Some((found, expected)) = message.split_once(", expected ") else { return message.to_string() };
    match expected {
        "map with a single key" => "must be an object with exactly one field".to_string(),
        "a map" => format!("{found}, expected an object"),
        "a sequence" => format!("{found}, expected a list"),
        kind if kind.starts_with("struct ") => format!("{found}, expected an object"),
        kind if kind.starts_with("internally tagged enum ") => {
            format!("{found}, expected an object with a \"type\"")
        }
        _ => message.to_string(),
    }
}

/// The same, with the path taken into tagged choices.
fn find<T: DeserializeOwned>(document: Value) -> Option<Wrong> {
    let mut found = wrong::<T>(&document)?;
    let Some(lone) = alone(document, &found) else { return Some(found) };
    if wrong::<T>(&lone).as_ref() != Some(&found) {
        return Some(found);
    }
    let first = wrong::<T>(&lone);
    loop {
        let fields = match lone.pointer(&pointer(&found.path)) {
            Some(Value::Object(fields)) => fields,
            Some(Value::Array(items)) => {
                match item(&lone, items.len(), &found.path, |rest| wrong::<T>(rest) != first) {
                    Some(index) => {
                        found.path.push(index.to_string());
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
        let matters = |field: &&String| {
            let mut rest = lone.clone();
            if let Some(Value::Object(fields)) = rest.pointer_mut(&pointer(&found.path)) {
                fields.remove(*field);
            }
            *field != "type" && wrong::<T>(&rest) != first
        };
        let culprit = fields.keys().find(matters).cloned();
        let tag =
            || (fields.contains_key("type") && found.message.starts_with("unknown variant")).then(|| "type".into());
        match culprit.or_else(tag) {
            Some(field) => found.path.push(field),
            None => break,
        }
    }
    Some(found)
}

/// The first item of the list at this path without which the error goes away.
fn item(document: &Value, count: usize, path: &[String], matters: impl Fn(&Value) -> bool) -> Option<usize> {
    (0..count.min(MAX_SEARCHED_FIELDS)).find(|index| {
        let mut rest = document.clone();
        if let Some(Value::Array(items)) = rest.pointer_mut(&pointer(path)) {
            items.remove(*index);
        }
        matters(&rest)
    })
}

/// The document with nothing but the wrong field, where that is small enough to be searched.
fn alone(document: Value, found: &Wrong) -> Option<Value> {
    let field = found.path.first()?;
    let Value::Object(mut fields) = document else { return None };
    let value = fields.remove(field)?;
    let small = serde_json::to_string(&value).is_ok_and(|text| text.len() <= MAX_SEARCHED_BYTES);
    small.then(|| Value::Object([(field.clone(), value)].into_iter().collect()))
}

/// A JSON pointer to this path.
pub fn pointer(path: &[String]) -> String {
    path.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

#[cfg(test)]
mod tests;
