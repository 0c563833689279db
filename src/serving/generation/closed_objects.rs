//! JSON schemas for generation: an object that lists its properties and does not mention others gets no others.
//!
//! JSON Schema allows any further property there. A model that is not sure would add them without end, so other servers generate the listed
//! ones alone, too. Every text of the closed schema is valid against the original one.

use serde_json::{Map, Value};

/// Keywords with which fewer properties in one place could make a text invalid in another: the schema is left as it is.
const COMBINING: [&str; 12] = [
    "allOf",
    "oneOf",
    "not",
    "if",
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "minProperties",
];
/// Keywords about properties: beside `$ref` or `anyOf`, both schemas hold for the same object.
const ABOUT_PROPERTIES: [&str; 5] =
    ["properties", "required", "patternProperties", "additionalProperties", "propertyNames"];
/// Keywords whose value is a schema, a list of schemas, or schemas by name.
const SCHEMA: [&str; 3] = ["items", "additionalProperties", "additionalItems"];
const SCHEMA_LIST: [&str; 2] = ["anyOf", "prefixItems"];
const SCHEMA_MAP: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// Closes the objects of a schema, where that is safe.
pub fn close_objects(schema: &mut Value) {
    if subschemas(schema).all(|schema| !is_combined(schema)) {
        close(schema);
    }
}

/// Whether the texts of a schema are those of several at once.
fn is_combined(schema: &Map<String, Value>) -> bool {
    let has = |keyword: &str| schema.contains_key(keyword);
    COMBINING.into_iter().any(has) || ((has("$ref") || has("anyOf")) && ABOUT_PROPERTIES.into_iter().any(has))
}

/// The schema and all schemas in it. A list in the place of a schema is one of older drafts: a schema per item.
fn subschemas(schema: &Value) -> Box<dyn Iterator<Item = &Map<String, Value>> + '_> {
    match schema {
        Value::Object(fields) => {
            let inner = fields.iter().flat_map(|(keyword, value)| children(keyword, value)).flat_map(subschemas);
            Box::new(std::iter::once(fields).chain(inner))
        }
        Value::Array(items) => Box::new(items.iter().flat_map(subschemas)),
        _ => Box::new(std::iter::empty()),
    }
}

/// Schemas that are the value of a keyword.
fn children<'a>(keyword: &str, value: &'a Value) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
    match value {
        Value::Object(named) if SCHEMA_MAP.contains(&keyword) => Box::new(named.values()),
        _ if SCHEMA.contains(&keyword) || SCHEMA_LIST.contains(&keyword) => Box::new(std::iter::once(value)),
        _ => Box::new(std::iter::empty()),
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(fields) => {
            for (keyword, value) in fields.iter_mut() {
                match value {
                    Value::Object(named) if SCHEMA_MAP.contains(&keyword.as_str()) => {
                        named.values_mut().for_each(close);
                    }
                    _ if SCHEMA.contains(&keyword.as_str()) || SCHEMA_LIST.contains(&keyword.as_str()) => close(value),
                    _ => {}
                }
            }
            if lists_all_properties(fields) {
                fields.insert("additionalProperties".to_string(), Value::Bool(false));
            }
        }
        _ => {}
    }
}

/// Whether the schema lists properties, all required ones among them, and says nothing about others.
fn lists_all_properties(schema: &Map<String, Value>) -> bool {
    let says_others = ["additionalProperties", "patternProperties", "propertyNames"];
    let Some(Value::Object(properties)) =
        schema.get("properties").filter(|_| !says_others.into_iter().any(|keyword| schema.contains_key(keyword)))
    else {
        return false;
    };
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    !properties.is_empty()
        && required.into_iter().all(|name| name.as_str().is_some_and(|name| properties.contains_key(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn closed(mut schema: Value) -> Value {
        close_objects(&mut schema);
        schema
    }

    #[test]
    fn objects_that_list_their_properties_are_closed() {
        let schema = json!({
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/b"}, "c": {"type": "array", "items": {"properties": {"d": {}}}},
                "properties": {"enum": [{"properties": {}}]}},
            "required": ["a"],
            "$defs": {"b": {"anyOf": [{"properties": {"e": {"type": "integer"}}}, {"type": "null"}]}}
        });
        let found = closed(schema);
        for pointer in ["", "/properties/c/items", "/$defs/b/anyOf/0"] {
            assert_eq!(found.pointer(pointer).unwrap()["additionalProperties"], json!(false), "{pointer}");
        }
        for pointer in
            ["/properties/a", "/properties/c", "/properties/properties", "/properties/properties/enum/0", "/$defs/b"]
        {
            assert_eq!(found.pointer(pointer).unwrap().get("additionalProperties"), None, "{pointer}");
        }
    }

    #[test]
    fn what_a_schema_says_of_other_properties_holds() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "object", "properties": {}}),
            json!({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}),
            json!({"properties": {"a": {}}, "patternProperties": {"^x": {}}}),
            json!({"properties": {"a": {}}, "required": ["b"]}),
            json!({"properties": {"a": {}}, "anyOf": [{"required": ["b"]}]}),
            json!({"required": ["b"], "anyOf": [{"properties": {"a": {}}}]}),
            json!({"properties": {"a": {}}, "minProperties": 2}),
            json!({"properties": {"a": {"oneOf": [{"properties": {"b": {}}}, {"type": "null"}]}}}),
            json!({"items": {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}}),
            json!({"$ref": "#/$defs/a", "properties": {"b": {}}, "$defs": {"a": {"properties": {"c": {}}}}}),
            json!(true),
        ] {
            assert_eq!(closed(schema.clone()), schema);
        }
    }
}
