//! Refusals in the form that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`.
//!
//! Knows nothing of where a refusal came from.

use crate::http::error::ApiError;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use espalier_core::error::Location;
use serde_json::{Value, json};

/// Whether a path's errors have this form.
pub fn uses_openai_errors(path: &str) -> bool {
    ["/v1/chat/completions", "/v1/completions", "/v1/models"].iter().any(|prefix| path.starts_with(prefix))
}

/// What is wrong with a request is a 400 there.
fn openai_status(error: &ApiError) -> StatusCode {
    match error.status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    }
}

pub fn error_body(error: &ApiError, request_id: &str) -> Value {
    let error_type = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let param = error.field_errors.first().and_then(|field_error| match &field_error.location {
        Location::Pointer(pointer) => Some(pointer.trim_start_matches('/').replace('/', ".")),
        Location::Line(_) => None,
    });
    json!({"error": {
        "message": error.detail, "type": error_type, "param": param, "code": error.code, "request_id": request_id,
    }})
}

/// Gives an answer the body of its refusal.
pub fn render(response: Response, error: ApiError, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = openai_status(&error);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = error_body(&error, request_id).to_string();
    parts.headers.extend(error.headers);
    Response::from_parts(parts, Body::from(body))
}
