//! OpenAPI document: the parts that all operations share, added to the operations collected from the routes.

use super::error::Problem;
use super::problem_responses::{self, COMMON_STATUSES};
use std::collections::BTreeMap;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{AllOf, Object, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, RefOr};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "espalier",
        description = "Trains small adapters on one frozen transformer and serves all of them from a single copy of its weights. \
            A training job turns a dataset into an adapter; requests for different adapters share a batch.\n\nEvery error is a \
            problem document (RFC 9457; under /v1 an error in OpenAI's format) with a stable `code`, a `detail` that says what \
            to do, and the request id.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "jobs", description = "Training jobs."),
        (name = "datasets", description = "Training and validation data, stored by content hash."),
        (name = "adapters", description = "Trained and imported adapters."),
        (name = "predictions", description = "Predictions of an adapter or the base model."),
        (name = "generation", description = "Text generation by an adapter or the base model."),
        (name = "openai", description = "OpenAI-compatible generation. Errors have OpenAI's format."),
        (name = "base", description = "The frozen base model."),
        (name = "operations", description = "Health, metrics and this document."),
    ),
    components(schemas(Problem)),
    security(("key" = [])),
    modifiers(&BearerAuth),
)]
pub struct ApiDoc;

struct BearerAuth;

impl Modify for BearerAuth {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let description = "API key of this server. A server without keys accepts every request.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// Adds the error responses that operations share, and their components, to the document collected from the routes.
pub fn complete_document(mut document: openapi::OpenApi) -> openapi::OpenApi {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        // An operation without a security entry inherits the document's: it needs a key.
        if operation.security.is_none() {
            let common_responses =
                COMMON_STATUSES.map(|status| (status.to_string(), problem_responses::response_ref(status)));
            operation.responses.responses.extend(common_responses);
        }
    }
    let components = document.components.get_or_insert_default();
    components.responses.extend(problem_responses::response_components());
    merge_tagged_unions(&mut components.schemas);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Rewrites the variants of tagged unions (`{"type": "lora", …}`) as single objects.
///
/// utoipa describes a variant as `allOf` of the settings and an object with the tag. Where the settings forbid additional
/// properties, no value satisfies both.
fn merge_tagged_unions(schemas: &mut Schemas) {
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

/// Merges the settings and the tag into one object; `None` for any other `allOf`.
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
