//! Error responses in OpenAI's format: `{"error": {"message", "type", "param", "code"}}`.

use crate::http::error::ApiError;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use espalier_core::error::Location;
use serde_json::{Value, json};

/// Returns whether errors of this path have OpenAI's format.
pub fn uses_openai_errors(path: &str) -> bool {
    ["/v1/chat/completions", "/v1/completions", "/v1/models"].iter().any(|prefix| path.starts_with(prefix))
}

/// OpenAI answers 400 to invalid requests, and never 422.
fn openai_status(error: &ApiError) -> StatusCode {
    match error.status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    }
}

/// Body of an error response, also sent as the last event of a failed stream.
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

/// Replaces the response's body with the error in OpenAI's format.
pub fn render(response: Response, error: ApiError, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = openai_status(&error);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = error_body(&error, request_id).to_string();
    parts.headers.extend(error.headers);
    Response::from_parts(parts, Body::from(body))
}
