//! Checks of the JSON schemas of tools.

use espalier_core::error::json_pointer;
use serde_json::Value;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];
const SCHEMA_FIELDS: [&str; 9] = [
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedProperties",
];
const SCHEMA_LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const SCHEMA_MAPS: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// Finds the first error of a schema: a pointer below it, and what is wrong. The depth is that of the JSON, which is limited.
pub fn find_error(schema: &Value) -> Option<(String, String)> {
    let fields = match schema {
        Value::Object(fields) => fields,
        Value::Bool(_) => return None,
        _ => return Some((String::new(), "must be a JSON schema: an object, true or false".to_string())),
    };
    fields.iter().find_map(|(name, value)| {
        let at = |rest: (String, String)| (json_pointer(&[name]) + &rest.0, rest.1);
        let own = |message: &str| Some((String::new(), message.to_string()));
        let error = match name.as_str() {
            "type" if !is_type(value) => own(&format!("must be one of {}, or a list of them", TYPES.join(", "))),
            "required" if !is_list_of_texts(value) => own("must be a list of names"),
            "enum" if value.as_array().is_none_or(Vec::is_empty) => own("must be a list of at least one value"),
            // Lists of schemas were used for tuples.
            "items" if value.is_array() => in_list(value),
            name if SCHEMA_FIELDS.contains(&name) => find_error(value),
            name if SCHEMA_LISTS.contains(&name) => in_list(value),
            name if SCHEMA_MAPS.contains(&name) => in_map(value),
            _ => None,
        };
        error.map(at)
    })
}

fn is_type(value: &Value) -> bool {
    let is_name = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    is_name(value) || value.as_array().is_some_and(|names| !names.is_empty() && names.iter().all(is_name))
}

fn is_list_of_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}

fn in_list(value: &Value) -> Option<(String, String)> {
    let Some(schemas) = value.as_array() else {
        return Some((String::new(), "must be a list of schemas".to_string()));
    };
    let error_at = |(index, schema)| find_error(schema).map(|(below, error)| (format!("/{index}{below}"), error));
    schemas.iter().enumerate().find_map(error_at)
}

fn in_map(value: &Value) -> Option<(String, String)> {
    let Some(schemas) = value.as_object() else {
        return Some((String::new(), "must be an object of schemas".to_string()));
    };
    let error_at = |(name, schema): (&String, &Value)| {
        find_error(schema).map(|(below, error)| (json_pointer(&[name]) + &below, error))
    };
    schemas.iter().find_map(error_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_are_found_by_their_place() {
        let valid = json!({"type": "object", "properties": {"type": {"type": ["string", "null"]}, "a/b": true},
            "required": ["type"], "additionalProperties": false, "$defs": {"x": {"anyOf": [{"enum": [1]}]}}});
        assert_eq!(find_error(&valid), None);
        for (schema, pointer) in [
            (json!([]), ""),
            (json!({"type": "text"}), "/type"),
            (json!({"properties": {"a/b": {"type": "dict"}}}), "/properties/a~1b/type"),
            (json!({"properties": ["a"]}), "/properties"),
            (json!({"required": "a"}), "/required"),
            (json!({"items": {"enum": []}}), "/items/enum"),
            (json!({"anyOf": [{}, 3]}), "/anyOf/1"),
        ] {
            assert_eq!(find_error(&schema).unwrap().0, pointer, "{schema}");
        }
    }
}
