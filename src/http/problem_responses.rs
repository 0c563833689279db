//! The problems that calls may answer with, for the document: each is described once and referred to by its name.
//!
//! Knows nothing of when they are answered.

use super::problem::PROBLEM_JSON;
use std::collections::BTreeMap;
use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder};

/// The problem of one status.
pub struct ProblemResponse<const STATUS: u16>;

pub type BadRequest = ProblemResponse<400>;
pub type NotFound = ProblemResponse<404>;
pub type RequestTimeout = ProblemResponse<408>;
pub type Conflict = ProblemResponse<409>;
pub type PayloadTooLarge = ProblemResponse<413>;
pub type UnsupportedMediaType = ProblemResponse<415>;
pub type UnprocessableEntity = ProblemResponse<422>;
pub type ServiceUnavailable = ProblemResponse<503>;

/// Every call that needs a key may answer with these.
pub const COMMON_STATUSES: [u16; 2] = [401, 500];

/// Status, name and description.
const PROBLEM_STATUSES: [(u16, &str, &str); 10] = [
    (400, "Unreadable", "Unreadable: malformed JSON, form or path."),
    (401, "Unauthorized", "The key is missing or wrong."),
    (404, "NotFound", "There is no such thing, or it is somebody else's."),
    (408, "Slow", "The body arrived too slowly."),
    (409, "Conflict", "Right in itself, but not in the present state."),
    (413, "TooLarge", "The body is too large."),
    (415, "Unsupported", "The content type is not one that this call reads."),
    (422, "Invalid", "Understood but wrong: `errors` names the fields or lines."),
    (500, "Internal", "Our fault: the log has the reason under the request's id."),
    (503, "Busy", "Too much at once, or shutting down: try again after `Retry-After` seconds."),
];

impl<const STATUS: u16> IntoResponses for ProblemResponse<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([(STATUS.to_string(), response_ref(STATUS))])
    }
}

/// The reference to a status's problem; a status without one has no place in the document.
pub fn response_ref(status: u16) -> RefOr<Response> {
    let name =
        PROBLEM_STATUSES.iter().find(|(candidate, ..)| *candidate == status).map_or("Unknown", |(_, name, _)| name);
    RefOr::Ref(Ref::from_response_name(name))
}

/// What the references refer to.
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
        401 => ("www-authenticate", Type::String, "How to authenticate."),
        503 => ("retry-after", Type::Integer, "Seconds to wait before trying again."),
        _ => return response.build(),
    };
    let schema = ObjectBuilder::new().schema_type(header_type).build();
    response.header(name, HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()).build()
}
