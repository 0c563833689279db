//! Makes the document's tagged choices (`{"type": "lora", …}`) mean what the code does.
//!
//! A choice is generated as "all of: the settings, and an object with the tag". Where the settings allow no other field,
//! no value fits both. Here the two become one object. Knows nothing of single choices.

use std::collections::BTreeMap;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOf, Object, Schema};

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Joins every tagged choice among these schemas.
pub fn merge_tagged_unions(schemas: &mut Schemas) {
    let all_schemas = schemas.clone();
    for schema in schemas.values_mut() {
        let RefOr::T(Schema::OneOf(union)) = schema else { continue };
        for item in &mut union.items {
            if let RefOr::T(Schema::AllOf(parts)) = item
                && let Some(merged) = merge_variant(parts, &all_schemas)
            {
                *item = RefOr::T(Schema::Object(merged));
            }
        }
    }
}

/// The settings and their tag as one object, where that is what the parts are.
fn merge_variant(parts: &AllOf, all_schemas: &Schemas) -> Option<Object> {
    let [RefOr::Ref(settings), RefOr::T(Schema::Object(tag))] = parts.items.as_slice() else { return None };
    let name = settings.ref_location.rsplit('/').next()?;
    let RefOr::T(Schema::Object(settings)) = all_schemas.get(name)? else { return None };
    let mut merged = settings.clone();
    for (field, schema) in &tag.properties {
        merged.properties.insert(field.clone(), schema.clone());
    }
    merged.required.extend(tag.required.iter().cloned());
    merged.title = Some(name.to_string());
    Some(merged)
}
