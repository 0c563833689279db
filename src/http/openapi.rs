//! OpenAPI document: the parts that all operations share, added to the operations collected from the routes.
//! Error responses are one reusable component per status code.

use super::error::{PROBLEM_JSON, Problem};
use std::collections::BTreeMap;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{AllOf, Object, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};

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
            let common_responses = COMMON_STATUSES.map(|status| (status.to_string(), response_ref(status)));
            operation.responses.responses.extend(common_responses);
        }
    }
    let components = document.components.get_or_insert_default();
    components.responses.extend(response_components());
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

/// Reference to the error response of one status code.
pub struct ProblemResponse<const STATUS: u16>;

pub type BadRequest = ProblemResponse<400>;
pub type NotFound = ProblemResponse<404>;
pub type RequestTimeout = ProblemResponse<408>;
pub type Conflict = ProblemResponse<409>;
pub type PayloadTooLarge = ProblemResponse<413>;
pub type UnsupportedMediaType = ProblemResponse<415>;
pub type UnprocessableEntity = ProblemResponse<422>;
pub type ServiceUnavailable = ProblemResponse<503>;

/// Error statuses of every operation that needs a key.
pub const COMMON_STATUSES: [u16; 3] = [401, 500, 507];

/// Status, component name and description.
const PROBLEM_STATUSES: [(u16, &str, &str); 11] = [
    (400, "BadRequest", "Malformed JSON, form, path or body."),
    (401, "Unauthorized", "The API key is missing or wrong."),
    (404, "NotFound", "The resource does not exist, or belongs to another owner."),
    (408, "RequestTimeout", "The request body arrived too slowly."),
    (409, "Conflict", "The operation is not possible in the resource's current state."),
    (413, "PayloadTooLarge", "The request body exceeds the server's limit."),
    (415, "UnsupportedMediaType", "The operation does not accept this content type."),
    (422, "UnprocessableEntity", "The request was understood but is invalid; `errors` names the fields or lines."),
    (500, "InternalServerError", "Internal error; the server's log has the cause under the request id."),
    (
        503,
        "ServiceUnavailable",
        "The server is overloaded or shutting down, or its database is unavailable; retry after `Retry-After` seconds.",
    ),
    (507, "InsufficientStorage", "The server's disk is full; retry after `Retry-After` seconds."),
];

impl<const STATUS: u16> IntoResponses for ProblemResponse<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([(STATUS.to_string(), response_ref(STATUS))])
    }
}

/// Returns the reference to a status's component; a status without a component gives a reference that does not resolve.
pub fn response_ref(status: u16) -> RefOr<Response> {
    let name =
        PROBLEM_STATUSES.iter().find(|(candidate, ..)| *candidate == status).map_or("Unknown", |(_, name, _)| name);
    RefOr::Ref(Ref::from_response_name(name))
}

/// Components that [`response_ref`] refers to.
pub fn response_components() -> impl Iterator<Item = (String, RefOr<Response>)> {
    PROBLEM_STATUSES
        .into_iter()
        .map(|(status, name, description)| (name.to_string(), problem_response(status, description).into()))
}

fn problem_response(status: u16, description: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new().description(description).content(PROBLEM_JSON, content);
    let (name, header_type, description) = match status {
        401 => ("www-authenticate", Type::String, "Authentication scheme to use."),
        503 | 507 => ("retry-after", Type::Integer, "Seconds to wait before retrying."),
        _ => return response.build(),
    };
    let schema = ObjectBuilder::new().schema_type(header_type).build();
    response.header(name, HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()).build()
}
