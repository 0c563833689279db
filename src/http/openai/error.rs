//! Refusals in the form that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`.
//!
//! Knows nothing of where a refusal came from.

use crate::http::error::Refusal;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use espalier_core::error::Place;
use serde_json::{Value, json};

/// Whether a path's errors have this form.
pub fn speaks(path: &str) -> bool {
    ["/v1/chat/completions", "/v1/completions", "/v1/models"].iter().any(|call| path.starts_with(call))
}

/// What is wrong with a request is a 400 there.
fn status(refusal: &Refusal) -> StatusCode {
    match refusal.status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    }
}

pub fn body(refusal: &Refusal, request_id: &str) -> Value {
    let kind = match refusal.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let param = refusal.faults.first().and_then(|fault| match &fault.place {
        Place::Pointer(pointer) => Some(pointer.trim_start_matches('/').replace('/', ".")),
        Place::Line(_) => None,
    });
    json!({"error": {
        "message": refusal.detail, "type": kind, "param": param, "code": refusal.code, "request_id": request_id,
    }})
}

/// Gives an answer the body of its refusal.
pub fn render(response: Response, refusal: Refusal, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = status(&refusal);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = body(&refusal, request_id).to_string();
    parts.headers.extend(refusal.headers);
    Response::from_parts(parts, Body::from(body))
}
