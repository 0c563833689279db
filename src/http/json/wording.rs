//! Words serde's messages in the terms of JSON: clients know no Rust types.

/// Maximum length of a value of the client in a message, in characters.
const MAX_VALUE_CHARS: usize = 80;

/// Replaces the names of Rust types in a message of serde.
pub fn in_json_terms(message: &str) -> String {
    let message = without_position(message);
    if message.starts_with("data did not match any variant") {
        return "has none of the forms that are accepted here".to_string();
    }
    // Untagged enums whose accepted values are described report the description alone.
    if message.starts_with("a ") || message.starts_with("an ") {
        return format!("must be {message}");
    }
    let Some((actual, expected)) = message.rsplit_once(", expected ") else { return message.to_string() };
    let actual = ["invalid type: ", "invalid value: "].iter().find_map(|prefix| actual.strip_prefix(prefix));
    if let Some(actual) = actual {
        return format!("must be {}, not {}", expected_value(expected), actual_value(actual));
    }
    if let Some(name) = message.strip_prefix("unknown variant ").and_then(|rest| rest.split(", expected ").next()) {
        return format!("must be {expected}, not {}", shorten(name));
    }
    match message.strip_prefix("invalid length ") {
        Some(_) => format!("must be {}", expected_value(expected)),
        None => message.to_string(),
    }
}

/// Message without the position in the text that `serde_json` adds.
fn without_position(message: &str) -> &str {
    let Some((text, position)) = message.rsplit_once(" at line ") else { return message };
    let is_position = position.split_once(" column ").is_some_and(|(line, column)| {
        [line, column].iter().all(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    if is_position { text } else { message }
}

/// Words a value that serde expects.
fn expected_value(expected: &str) -> String {
    let first = expected.split(' ').next().unwrap_or_default();
    let words = match expected {
        "f32" | "f64" => "a number",
        "u8" => "a whole number between 0 and 255",
        "u16" => "a whole number between 0 and 65535",
        "u32" => "a whole number between 0 and 4294967295",
        "u64" | "u128" | "usize" => "a whole number of 0 or more",
        "i8" => "a whole number between -128 and 127",
        "i16" => "a whole number between -32768 and 32767",
        "i32" => "a whole number between -2147483648 and 2147483647",
        "i64" | "i128" | "isize" => "a whole number",
        "a boolean" => "true or false",
        "a map" => "an object",
        "a sequence" => "a list",
        "map with a single key" => "an object with exactly one field",
        "string or map" => "a string or an object",
        "a borrowed string" | "a character" | "variant identifier" | "field identifier" => "a string",
        "unit" => "null",
        _ if expected.starts_with("a nonzero ") => "a whole number of 1 or more",
        _ if expected.starts_with("internally tagged enum ") => "an object with a \"type\"",
        _ if expected.starts_with("tuple ")
            || expected.starts_with("a tuple ")
            || expected.starts_with("an array ") =>
        {
            return list_of(expected);
        }
        _ if first == "struct" || first == "enum" || first == "newtype" => "an object",
        other => other,
    };
    words.to_string()
}

/// Words a tuple or array, whose length is the only number in its description.
fn list_of(expected: &str) -> String {
    match expected.split(' ').find_map(|word| word.parse::<usize>().ok()) {
        Some(length) => format!("a list of {length} values"),
        None => "a list".to_string(),
    }
}

/// Words a value that serde received.
fn actual_value(actual: &str) -> String {
    match actual {
        "map" | "struct variant" => "an object".to_string(),
        "sequence" | "byte array" | "tuple variant" => "a list".to_string(),
        "unit value" | "null" => "null".to_string(),
        _ => {
            let number = ["integer ", "floating point ", "boolean ", "character "];
            let number = number.iter().find_map(|kind| actual.strip_prefix(kind));
            match (number, actual.strip_prefix("string ")) {
                (Some(value), _) => value.trim_matches('`').to_string(),
                (None, Some(text)) => format!("the string {}", shorten(text)),
                (None, None) => shorten(actual),
            }
        }
    }
}

/// Cuts a value of the client.
fn shorten(value: &str) -> String {
    match value.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_string(),
    }
}

/// Words the error of a value in a query, which is text.
pub fn of_query_value(message: &str) -> String {
    match message {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "must be a whole number of 0 or more"
        }
        "number too large to fit in target type" => "is too large",
        "number too small to fit in target type" => "is too small",
        "invalid float literal" | "cannot parse float from empty string" => "must be a number",
        "provided string was not `true` or `false`" => "must be true or false",
        other => match other.strip_prefix("UUID parsing failed") {
            Some(_) => "must be a UUID, such as 01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f",
            None => return in_json_terms(other),
        },
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn message<T: DeserializeOwned>(value: Value) -> String {
        match serde_json::from_value::<T>(value) {
            Ok(_) => String::new(),
            Err(error) => in_json_terms(&error.to_string()),
        }
    }

    #[derive(Debug, Deserialize)]
    struct Fields {
        #[serde(rename = "text")]
        _text: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        First,
        Second,
    }

    #[test]
    fn types_are_those_of_json() {
        assert_eq!(message::<f32>(json!("hot")), "must be a number, not the string \"hot\"");
        assert_eq!(message::<u32>(json!(-1)), "must be a whole number between 0 and 4294967295, not -1");
        assert_eq!(message::<u64>(json!(2.5)), "must be a whole number of 0 or more, not 2.5");
        assert_eq!(message::<usize>(json!(true)), "must be a whole number of 0 or more, not true");
        assert_eq!(message::<bool>(json!({})), "must be true or false, not an object");
        assert_eq!(message::<String>(json!([1])), "must be a string, not a list");
        assert_eq!(message::<Vec<u8>>(json!(null)), "must be a list, not null");
        assert_eq!(message::<Fields>(json!("a")), "must be an object, not the string \"a\"");
        assert_eq!(message::<BTreeMap<String, u8>>(json!(3)), "must be an object, not 3");
        assert_eq!(message::<(u8, u8)>(json!([1])), "must be a list of 2 values");
        assert_eq!(message::<Choice>(json!("third")), "must be `first` or `second`, not `third`");
        assert_eq!(message::<Choice>(json!(3)), "must be a string or an object, not 3");
        assert_eq!(message::<Fields>(json!({})), "missing field `text`");
        assert_eq!(message::<std::num::NonZeroU32>(json!(0)), "must be a whole number of 1 or more, not 0");
    }

    #[test]
    fn values_of_the_client_are_kept_apart_and_cut() {
        let text = "a, expected u32 at line 1 column 2";
        assert_eq!(message::<bool>(json!(text)), format!("must be true or false, not the string {text:?}"));
        assert!(message::<bool>(json!("x".repeat(1000))).len() < 200);
        assert_eq!(without_position("duplicate field `a` at line 1 column 20"), "duplicate field `a`");
    }

    #[test]
    fn query_values_are_worded_as_text() {
        assert_eq!(of_query_value("invalid digit found in string"), "must be a whole number of 0 or more");
        assert!(of_query_value("UUID parsing failed: invalid length").contains("UUID"));
        assert_eq!(of_query_value("unknown field `page`, expected `limit`"), "unknown field `page`, expected `limit`");
    }
}
