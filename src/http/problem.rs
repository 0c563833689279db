//! The body of every error answer (RFC 9457).
//!
//! Knows nothing of where a refusal came from.

use super::error::ApiError;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use espalier_core::error::{FieldError, Location};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not done, and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:espalier:problem:invalid_body",
    "title": "Unprocessable Entity",
    "status": 422,
    "code": "invalid_body",
    "detail": "method.rnk: unknown field `rnk`, expected one of `rank`, `alpha`, `dropout`",
    "errors": [{"pointer": "/method/rnk", "message": "unknown field `rnk`, expected one of `rank`, `alpha`, `dropout`"}],
    "request_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"
}))]
pub struct Problem {
    /// `urn:espalier:problem:` and the code.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The status in words.
    pub title: String,
    pub status: u16,
    /// A fixed word for machines.
    pub code: String,
    /// A sentence for people that says what to do.
    pub detail: String,
    /// The single faults, where there are any.
    pub errors: Vec<ProblemError>,
    /// The same as in the header `x-request-id`, and in the server's log.
    pub request_id: String,
}

/// One fault: a JSON pointer (RFC 6901) into the body, or a line of the file, the first being 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProblemError {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    pub message: String,
}

impl From<FieldError> for ProblemError {
    fn from(error: FieldError) -> Self {
        let (pointer, line) = match error.location {
            Location::Pointer(pointer) => (Some(pointer), None),
            Location::Line(line) => (None, Some(line)),
        };
        Self { pointer, line, message: error.message }
    }
}

/// Gives an answer the body of its refusal; one that is none is left as it is.
pub fn render(response: Response, error: ApiError, request_id: &str) -> Response {
    let problem = Problem {
        type_uri: format!("urn:espalier:problem:{}", error.code),
        title: error.status.canonical_reason().unwrap_or("Error").to_string(),
        status: error.status.as_u16(),
        code: error.code.to_string(),
        detail: error.detail,
        errors: error.field_errors.into_iter().map(ProblemError::from).collect(),
        request_id: request_id.to_string(),
    };
    let body = serde_json::to_vec(&problem).expect("text and numbers always have a JSON form");
    let (mut parts, _) = response.into_parts();
    parts.status = error.status;
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    parts.headers.extend(error.headers);
    Response::from_parts(parts, Body::from(body))
}
