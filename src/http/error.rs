//! From what went wrong to what the client is told: an RFC 9457 problem.
//!
//! A [`Refusal`] travels as an extension of an empty response; [`super::problem::render`] writes the body, because only
//! the middleware knows the request's id. Knows nothing of single routes.

use axum::body::Body;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Error, FieldError, Problem};
use std::sync::Arc;
use std::time::Duration;

/// What a handler answers.
pub type ApiResult<T> = Result<T, ApiError>;

/// A request that was not done: the problem's status, words and headers.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub field_errors: Vec<FieldError>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Logged with the request's id, never shown.
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
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field_errors: Vec::new(), headers: Vec::new(), cause: None }
    }

    fn from_problem(status: StatusCode, problem: Problem) -> Self {
        Self { field_errors: problem.errors, ..Self::new(status, problem.code, problem.detail) }
    }

    fn internal(cause: anyhow::Error) -> Self {
        let detail = "something failed on our side; the log has the reason under this request's id";
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
        Self { cause: Some(Arc::new(cause)), ..error }
    }

    /// Not readable at all, as JSON, a form or a query.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn unauthorized(code: &'static str, detail: &str, challenge: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub fn payload_too_large(subject: &str, limit: u64) -> Self {
        let detail = format!("{subject} is larger than this server's limit of {limit} bytes: send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// The client was too slow in sending its body.
    pub fn request_timeout(limit: Duration) -> Self {
        let detail = format!("the body did not arrive within {} seconds: send it again", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    }

    pub fn with_field_errors(self, field_errors: Vec<FieldError>) -> Self {
        Self { field_errors, ..self }
    }

    /// Whole seconds, at least one: the header knows no fractions.
    pub fn with_retry_after(self, delay: Duration) -> Self {
        let seconds = delay.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The words for an error answer that came without any: the router's own, or a library's.
    pub fn from_status(status: StatusCode, method: &str, path: &str) -> Self {
        match status {
            StatusCode::NOT_FOUND => {
                Self::new(status, "route_not_found", format!("there is nothing at {path}: GET /docs lists every call"))
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                // the router adds that header after everything else
                let detail = format!("{method} cannot be used on {path}: the header Allow names the methods that can");
                Self::new(status, "method_not_allowed", detail)
            }
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "too_large", "the body is too large: send less"),
            status if status.is_server_error() => {
                Self::internal(anyhow::anyhow!("answered {status} without saying why"))
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
