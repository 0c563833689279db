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
/// Keywords whose value is a schema or a list of schemas, and those whose value is schemas by name.
const SCHEMAS: [&str; 5] = ["items", "additionalProperties", "additionalItems", "anyOf", "prefixItems"];
const NAMED_SCHEMAS: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// Closes the objects of a schema, where that is safe.
pub fn close_objects(schema: &mut Value) {
    let mut has_combined = false;
    visit(schema, &mut |schema| has_combined |= is_combined(schema));
    if !has_combined {
        visit(schema, &mut close);
    }
}

/// Whether the texts of a schema are those of several at once.
fn is_combined(schema: &Map<String, Value>) -> bool {
    let has = |keyword: &str| schema.contains_key(keyword);
    COMBINING.into_iter().any(has) || ((has("$ref") || has("anyOf")) && ABOUT_PROPERTIES.into_iter().any(has))
}

/// Visits the schemas inside a schema, and then the schema. A list in the place of a schema is one of older drafts: a schema per item.
fn visit(schema: &mut Value, visitor: &mut impl FnMut(&mut Map<String, Value>)) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, visitor)),
        Value::Object(fields) => {
            for (keyword, value) in fields.iter_mut() {
                match value {
                    Value::Object(named) if NAMED_SCHEMAS.contains(&keyword.as_str()) => {
                        named.values_mut().for_each(|inner| visit(inner, visitor));
                    }
                    _ if SCHEMAS.contains(&keyword.as_str()) => visit(value, visitor),
                    _ => {}
                }
            }
            visitor(fields);
        }
        _ => {}
    }
}

fn close(schema: &mut Map<String, Value>) {
    if lists_all_properties(schema) {
        schema.insert("additionalProperties".to_string(), Value::Bool(false));
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
