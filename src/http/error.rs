//! From what went wrong to what the client is told: an RFC 9457 problem.
//!
//! A [`Refusal`] travels as an extension of an empty response; [`super::problem::render`] writes the body, because only
//! the middleware knows the request's id. Knows nothing of single routes.

use axum::body::Body;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Error, Fault, Problem};
use std::sync::Arc;
use std::time::Duration;

/// What a handler answers.
pub type Answer<T> = Result<T, Refusal>;

/// A request that was not done: the problem's status, words and headers.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub faults: Vec<Fault>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Logged with the request's id, never shown.
    pub cause: Option<Arc<anyhow::Error>>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(problem) => Self::of(StatusCode::UNPROCESSABLE_ENTITY, problem),
            Error::NotFound(problem) => Self::of(StatusCode::NOT_FOUND, problem),
            Error::Conflict(problem) => Self::of(StatusCode::CONFLICT, problem),
            Error::Busy { problem, retry_after } => {
                Self::of(StatusCode::SERVICE_UNAVAILABLE, problem).retry_after(retry_after)
            }
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), faults: Vec::new(), headers: Vec::new(), cause: None }
    }

    fn of(status: StatusCode, problem: Problem) -> Self {
        Self { faults: problem.faults, ..Self::new(status, problem.code, problem.detail) }
    }

    fn internal(cause: anyhow::Error) -> Self {
        let detail = "something failed on our side; the log has the reason under this request's id";
        let refusal = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
        Self { cause: Some(Arc::new(cause)), ..refusal }
    }

    /// Not readable at all, as JSON, a form or a query.
    pub fn unreadable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn unauthorized(code: &'static str, detail: &str, challenge: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub fn too_large(what: &str, limit: u64) -> Self {
        let detail = format!("{what} is larger than this server's limit of {limit} bytes: send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// The client was too slow in sending its body.
    pub fn too_slow(limit: Duration) -> Self {
        let detail = format!("the body did not arrive within {} seconds: send it again", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    }

    pub fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// Whole seconds, at least one: the header knows no fractions.
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The words for an error answer that came without any: the router's own, or a library's.
    pub fn plain(status: StatusCode, method: &str, path: &str) -> Self {
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

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}
