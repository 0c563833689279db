//! Error responses in OpenAI's format: `{"error": {"message", "type", "param", "code"}}`.

use crate::http::error::ApiError;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use espalier_core::error::{Location, field_path};
use serde::Serialize;
use utoipa::ToSchema;

/// Largest number of lines of a file that a message names.
const MAX_LINES: usize = 20;

/// Returns whether errors of this path have OpenAI's format.
pub fn uses_openai_errors(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

/// OpenAI answers 400 to invalid requests, and never 422.
fn openai_status(error: &ApiError) -> StatusCode {
    match error.status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    }
}

/// Clients look for OpenAI's code of a prompt that is too long.
fn openai_code(code: &'static str) -> &'static str {
    match code {
        "too_long" => "context_length_exceeded",
        other => other,
    }
}

/// Why a request failed, in OpenAI's format.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"error": {
    "message": "there is no model \"support\": GET /v1/models lists those that there are", "type": "invalid_request_error",
    "param": null, "code": "model_not_found", "request_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f"
}}))]
pub struct OpenAiError {
    pub error: OpenAiErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiErrorBody {
    /// Sentence for people that says what to do.
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    pub error_type: &'static str,
    /// Field of the request that is wrong, such as `messages[0].content`.
    pub param: Option<String>,
    /// Stable identifier for programs.
    pub code: &'static str,
    /// Value of the response header `x-request-id`; the server's log has it too.
    pub request_id: String,
}

/// Body of an error response, also sent as the last event of a failed stream.
pub fn error_body(error: &ApiError, request_id: &str) -> OpenAiError {
    let error_type = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let param = error.field_errors.first().and_then(|field_error| match &field_error.location {
        Location::Pointer(pointer) => Some(field_path(pointer)),
        Location::Line(_) => None,
    });
    let (message, request_id) = (message_with_lines(error), request_id.to_string());
    OpenAiError { error: OpenAiErrorBody { message, error_type, param, code: openai_code(error.code), request_id } }
}

/// The error's sentence, and those about lines of a file, for which OpenAI's format has no other place.
fn message_with_lines(error: &ApiError) -> String {
    let about_lines = error.field_errors.iter().filter_map(|field_error| match &field_error.location {
        Location::Line(line) => Some(format!("\nline {line}: {}", field_error.message)),
        Location::Pointer(_) => None,
    });
    std::iter::once(error.detail.clone()).chain(about_lines.take(MAX_LINES)).collect()
}

/// Replaces the response's body with the error in OpenAI's format.
pub fn render(response: Response, error: ApiError, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = openai_status(&error);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::to_vec(&error_body(&error, request_id)).expect("strings always serialize to JSON");
    parts.headers.extend(error.headers);
    Response::from_parts(parts, Body::from(body))
}
