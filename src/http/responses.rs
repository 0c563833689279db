//! The problems that calls may answer with, for the document: each is described once and referred to by its name.
//!
//! Knows nothing of when they are answered.

use super::problem::CONTENT;
use std::collections::BTreeMap;
use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder};

/// The problem of one status.
pub struct Answers<const STATUS: u16>;

pub type Unreadable = Answers<400>;
pub type NotFound = Answers<404>;
pub type Slow = Answers<408>;
pub type Conflict = Answers<409>;
pub type TooLarge = Answers<413>;
pub type Unsupported = Answers<415>;
pub type Invalid = Answers<422>;
pub type Busy = Answers<503>;

/// Every call that needs a key may answer with these.
pub const SHARED: [u16; 2] = [401, 500];

/// Status, name and description.
const KNOWN: [(u16, &str, &str); 10] = [
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

impl<const STATUS: u16> IntoResponses for Answers<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([(STATUS.to_string(), reference(STATUS))])
    }
}

/// The reference to a status's problem; a status without one has no place in the document.
pub fn reference(status: u16) -> RefOr<Response> {
    let name = KNOWN.iter().find(|(known, ..)| *known == status).map_or("Unknown", |(_, name, _)| name);
    RefOr::Ref(Ref::from_response_name(name))
}

/// What the references refer to.
pub fn components() -> impl Iterator<Item = (String, RefOr<Response>)> {
    KNOWN.into_iter().map(|(status, name, description)| (name.to_string(), response(status, description).into()))
}

fn response(status: u16, description: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new().description(description).content(CONTENT, content);
    let (name, kind, description) = match status {
        401 => ("www-authenticate", Type::String, "How to authenticate."),
        503 => ("retry-after", Type::Integer, "Seconds to wait before trying again."),
        _ => return response.build(),
    };
    let schema = ObjectBuilder::new().schema_type(kind).build();
    response.header(name, HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()).build()
}
