//! API errors: status code, headers and the body of every error response (RFC 9457 problem details).
//!
//! An [`ApiError`] travels as an extension of a response without a body. The middleware writes the body with [`render`],
//! because it knows the request id.

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use espalier_core::error::{self, Error, FieldError, Location};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// `Retry-After` of a full disk: an operator has to free space.
const STORAGE_FULL_RETRY_AFTER: Duration = Duration::from_secs(30);

/// `Retry-After` of a quota: jobs have to end, or something has to be deleted.
const QUOTA_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Content encodings of request bodies that are read.
const ENCODINGS: &str = "gzip, deflate, zstd";

pub const PROBLEM_JSON: &str = "application/problem+json";

/// Result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// Error response: status, problem and additional headers.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub field_errors: Vec<FieldError>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Cause of an internal error or a full disk; logged with the request id and never sent.
    pub cause: Option<Arc<anyhow::Error>>,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(problem) => Self::from_problem(StatusCode::UNPROCESSABLE_ENTITY, problem),
            Error::NotFound(problem) => Self::from_problem(StatusCode::NOT_FOUND, problem),
            Error::Conflict(problem) => Self::from_problem(StatusCode::CONFLICT, problem),
            Error::Busy { problem, retry_after } => {
                Self::from_problem(StatusCode::SERVICE_UNAVAILABLE, problem).with_retry_after(retry_after)
            }
            Error::QuotaExceeded(problem) => {
                Self::from_problem(StatusCode::TOO_MANY_REQUESTS, problem).with_retry_after(QUOTA_RETRY_AFTER)
            }
            Error::StorageFull(cause) => Self::storage_full(cause),
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field_errors: Vec::new(), headers: Vec::new(), cause: None }
    }

    fn from_problem(status: StatusCode, problem: error::Problem) -> Self {
        Self { field_errors: problem.errors, ..Self::new(status, problem.code, problem.detail) }
    }

    fn internal(cause: anyhow::Error) -> Self {
        let detail = "something failed on our side; the log has the reason under this request's id";
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
        Self { cause: Some(Arc::new(cause)), ..error }
    }

    fn storage_full(cause: anyhow::Error) -> Self {
        let detail = "the disk of the server is full, so that nothing was stored: free some space, then send it again";
        let error = Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", detail);
        Self { cause: Some(Arc::new(cause)), ..error.with_retry_after(STORAGE_FULL_RETRY_AFTER) }
    }

    /// Malformed JSON, form, path or body.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn unauthorized(code: &'static str, detail: &str, challenge: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// The key is not one of the server's.
    pub fn wrong_key() -> Self {
        Self::unauthorized(
            "key_wrong",
            "the key is not one of this server's: ask its operator",
            "Bearer realm=\"espalier\", error=\"invalid_token\"",
        )
    }

    /// The credential has none of the scopes that the route needs.
    pub fn missing_scope(scopes: &str) -> Self {
        let detail =
            format!("the key may not do this: it needs the scope {scopes}; ask an administrator for a key that has it");
        Self::new(StatusCode::FORBIDDEN, "scope_missing", detail).with_header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"espalier\", error=\"insufficient_scope\""),
        )
    }

    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 415 for the compression of a body, with the encodings that are read.
    pub fn unsupported_encoding(subject: &str) -> Self {
        let detail = format!("{subject} is not read: send the body as it is, or in one of {ENCODINGS}");
        Self::unsupported_media_type(detail).with_header(ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS))
    }

    pub fn payload_too_large(subject: &str, limit: u64) -> Self {
        let detail = format!("{subject} is larger than this server's limit of {limit} bytes: send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// The whole request body did not arrive in time. The connection is closed.
    pub fn request_timeout(limit: Duration) -> Self {
        let detail = format!("the body did not arrive within {} seconds: send it again", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail).with_connection_close()
    }

    /// Fewer than `bytes` bytes of the request body arrived in `window`. The connection is closed.
    pub fn body_too_slow(window: Duration, bytes: u64) -> Self {
        let detail = format!(
            "the body is too slow: {bytes} bytes, the minimum, did not arrive within {} seconds; send it again over a faster \
             connection (--min-body-rate and --read-timeout are the server's settings)",
            window.as_secs_f64()
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail).with_connection_close()
    }

    pub fn with_field_errors(self, field_errors: Vec<FieldError>) -> Self {
        Self { field_errors, ..self }
    }

    /// Adds `Retry-After`, rounded up to whole seconds and at least 1.
    pub fn with_retry_after(self, delay: Duration) -> Self {
        let seconds = delay.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn with_connection_close(self) -> Self {
        self.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Error for a response of the router or a library that has an error status and no [`ApiError`].
    pub fn from_status(status: StatusCode, method: &str, path: &str) -> Self {
        match status {
            StatusCode::NOT_FOUND => {
                Self::new(status, "route_not_found", format!("there is nothing at {path}: GET /docs lists every call"))
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                // The router adds the Allow header after all middleware has run.
                let detail = format!("{method} cannot be used on {path}: the header Allow names the methods that can");
                Self::new(status, "method_not_allowed", detail)
            }
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "too_large", "the body is too large: send less"),
            status if status.is_server_error() => {
                Self::internal(anyhow::anyhow!("response with status {status} and no error"))
            }
            status => Self::new(status, "bad_request", "the request could not be understood: GET /docs shows its form"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// Why a request failed, and what to do about it (RFC 9457).
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
    /// `urn:espalier:problem:` followed by the code.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// Reason phrase of the status code.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// Stable identifier for programs.
    pub code: String,
    /// Sentence for people that says what to do.
    pub detail: String,
    /// Errors of single fields or lines; may be empty.
    pub errors: Vec<ProblemError>,
    /// Value of the response header `x-request-id`; the server's log has it too.
    pub request_id: String,
}

/// Error of one field of the body, or of one line of an uploaded file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProblemError {
    /// JSON pointer (RFC 6901) into the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Line number in the file, counted from 1.
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

/// Replaces the response's body with the error as a problem document.
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
    let body = serde_json::to_vec(&problem).expect("strings and integers always serialize to JSON");
    let (mut parts, _) = response.into_parts();
    parts.status = error.status;
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    parts.headers.extend(error.headers);
    Response::from_parts(parts, Body::from(body))
}
