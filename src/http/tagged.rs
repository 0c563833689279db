//! Makes the document's tagged choices (`{"type": "lora", …}`) mean what the code does.
//!
//! A choice is generated as "all of: the settings, and an object with the tag". Where the settings allow no other field,
//! no value fits both. Here the two become one object. Knows nothing of single choices.

use std::collections::BTreeMap;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOf, Object, Schema};

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Joins every tagged choice among these schemas.
pub fn join(schemas: &mut Schemas) {
    let known = schemas.clone();
    for schema in schemas.values_mut() {
        let RefOr::T(Schema::OneOf(choice)) = schema else { continue };
        for item in &mut choice.items {
            if let RefOr::T(Schema::AllOf(parts)) = item
                && let Some(joined) = join_parts(parts, &known)
            {
                *item = RefOr::T(Schema::Object(joined));
            }
        }
    }
}

/// The settings and their tag as one object, where that is what the parts are.
fn join_parts(parts: &AllOf, known: &Schemas) -> Option<Object> {
    let [RefOr::Ref(settings), RefOr::T(Schema::Object(tag))] = parts.items.as_slice() else { return None };
    let name = settings.ref_location.rsplit('/').next()?;
    let RefOr::T(Schema::Object(settings)) = known.get(name)? else { return None };
    let mut joined = settings.clone();
    for (field, schema) in &tag.properties {
        joined.properties.insert(field.clone(), schema.clone());
    }
    joined.required.extend(tag.required.iter().cloned());
    joined.title = Some(name.to_string());
    Some(joined)
}
