//! Error responses of the OpenAPI document: one reusable component per status code.

use super::error::PROBLEM_JSON;
use std::collections::BTreeMap;
use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder};

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
pub const COMMON_STATUSES: [u16; 2] = [401, 500];

/// Status, component name and description.
const PROBLEM_STATUSES: [(u16, &str, &str); 10] = [
    (400, "BadRequest", "Malformed JSON, form, path or body."),
    (401, "Unauthorized", "The API key is missing or wrong."),
    (404, "NotFound", "The resource does not exist, or belongs to another owner."),
    (408, "RequestTimeout", "The request body arrived too slowly."),
    (409, "Conflict", "The operation is not possible in the resource's current state."),
    (413, "PayloadTooLarge", "The request body exceeds the server's limit."),
    (415, "UnsupportedMediaType", "The operation does not accept this content type."),
    (422, "UnprocessableEntity", "The request was understood but is invalid; `errors` names the fields or lines."),
    (500, "InternalServerError", "Internal error; the server's log has the cause under the request id."),
    (503, "ServiceUnavailable", "The server is overloaded or shutting down; retry after `Retry-After` seconds."),
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
        503 => ("retry-after", Type::Integer, "Seconds to wait before retrying."),
        _ => return response.build(),
    };
    let schema = ObjectBuilder::new().schema_type(header_type).build();
    response.header(name, HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()).build()
}
