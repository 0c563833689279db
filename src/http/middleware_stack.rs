//! Middleware: authentication, host and origin, deadline, body limits, panic handling, request id, log line, metrics and error bodies.

use super::allowed_hosts::check_host;
use super::auth::{API_KEY, Access, Authenticator};
use super::body_memory::{BodyMemory, hold_body_memory};
use super::client_address::read_forwarded_for;
use super::connection::Rejection;
use super::cross_origin::refuse_cross_origin_writes;
use super::drain_body::{BodyWait, drain_request_body};
use super::error::{self, ApiError, ApiResult};
use super::metrics::Metrics;
use super::openai_error;
use super::request_decompression::decompress_request;
use super::request_id::{REQUEST_ID, RequestId};
use super::response_compression::compress_response;
use super::state::Settings;
use crate::telemetry::{self, TraceContext};
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use espalier_core::error::Error;
use std::any::Any;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use utoipa_axum::router::OpenApiRouter;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Where the request is found in the collector: the request's span in the form of `traceparent`.
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// Milliseconds until the response starts, as OpenAI sends them.
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
/// Allowance for the boundaries and part headers of a form, in bytes.
const MULTIPART_OVERHEAD: u64 = 64 * 1024;

/// Rejects requests without a valid credential, without the scopes of the route, and beyond the caller's limits.
pub fn require_auth<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    access: Arc<Access>,
) -> OpenApiRouter<S> {
    routes.route_layer(from_fn_with_state(access, super::auth::authorize))
}

/// Answers 503 if the handler takes longer than the deadline, and 408 if it is still waiting for the body then.
pub fn with_deadline<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    deadline: Duration,
) -> OpenApiRouter<S> {
    routes.route_layer(from_fn_with_state(deadline, enforce_deadline))
}

/// Adds the middleware that applies to every route and to unmatched paths.
pub fn apply_middleware(
    router: Router,
    settings: &Settings,
    authenticator: &Authenticator,
    metrics: Arc<Metrics>,
) -> Router {
    let max_upload_bytes = settings.max_dataset_bytes.max(settings.max_adapter_bytes);
    let max_body_bytes =
        max_upload_bytes.saturating_add(settings.max_json_bytes as u64).saturating_add(MULTIPART_OVERHEAD);
    let router = refuse_cross_origin_writes(router, settings, authenticator)
        .layer(from_fn_with_state(settings.allowed_hosts.clone(), check_host))
        .layer(from_fn(answer_refused))
        .layer(DefaultBodyLimit::max(usize::try_from(max_body_bytes).unwrap_or(usize::MAX)))
        .layer(from_fn(decompress_request))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(from_fn_with_state(
            BodyMemory::new(settings.max_body_memory.max(settings.max_json_bytes)),
            hold_body_memory,
        ))
        .layer(map_request(drain_request_body))
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, COOKIE, API_KEY]));
    let router = match settings.compress_from_bytes {
        Some(min_bytes) => router.layer(from_fn_with_state(min_bytes, compress_response)),
        None => router,
    };
    // Preflight requests have no key, and errors have the headers too.
    let router = match settings.cors_origins.to_layer() {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(from_fn_with_state(metrics, trace_request))
        .layer(from_fn_with_state(settings.forwarded_for, read_forwarded_for))
}

/// Answers requests that their connection refuses. Health checks pass beyond the limit of connections, so that a busy server is not
/// restarted.
async fn answer_refused(request: Request, next: Next) -> ApiResult<Response> {
    match request.extensions().get::<Rejection>() {
        Some(Rejection::InvalidRequest(error)) => Err(error.clone()),
        Some(Rejection::TooManyConnections) if !request.uri().path().starts_with("/health") => {
            let detail = "the server has as many busy connections as it may (--max-connections): try again later";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", detail)
                .with_retry_after(Duration::from_secs(1)))
        }
        _ => Ok(next.run(request).await),
    }
}

async fn enforce_deadline(State(deadline): State<Duration>, request: Request, next: Next) -> ApiResult<Response> {
    let body_wait = request.extensions().get::<BodyWait>().cloned();
    let mut response = pin!(next.run(request));
    tokio::time::timeout(deadline, response.as_mut()).await.map_err(|_| match body_wait {
        Some(wait) if wait.is_waiting() => ApiError::request_timeout(deadline),
        _ => {
            let detail = format!("no answer within {} seconds: try again later", deadline.as_secs_f64());
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "deadline_exceeded", detail)
                .with_retry_after(Duration::from_secs(1))
        }
    })
}

fn panic_response(panic: Box<dyn Any + Send>) -> Response {
    ApiError::from(Error::from_panic("a handler", panic.as_ref())).into_response()
}

async fn trace_request(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let RequestId(request_id) = RequestId::of(request.headers());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let method = request.method().clone();
    let path = request.uri().path().to_string();
    let is_openai = openai_error::uses_openai_errors(&path);
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_string();
    let (span, trace) = request_span(&request_id, method.as_str(), &route, request.headers());
    let started_at = Instant::now();
    let handle_request = async {
        let _in_flight = metrics.start_request();
        let response = render_problem(next.run(request).await, (method.as_str(), &path), &request_id, &metrics);
        metrics.observe(method.as_str(), &route, response.status(), started_at.elapsed());
        log_request(&route, response.status(), started_at.elapsed());
        response
    };
    let mut response = handle_request.instrument(span.clone()).await;
    if let Some(traceresponse) = trace.and_then(|trace| HeaderValue::from_str(trace.traceparent()).ok()) {
        telemetry::set_attribute(&span, "http.response.status_code", usize::from(response.status().as_u16()));
        response.headers_mut().insert(TRACERESPONSE, traceresponse);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_openai {
        let milliseconds = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        response.headers_mut().insert(PROCESSING_MS, HeaderValue::from(milliseconds));
    }
    response
}

/// Span of a request, and its position in a trace if that is sampled: the trace that the client's headers name, or a new one.
fn request_span(request_id: &str, method: &str, route: &str, headers: &HeaderMap) -> (Span, Option<TraceContext>) {
    let span = tracing::info_span!("request", request_id, method, route, owner = Empty, trace_id = Empty);
    let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(parent) = header(&TRACEPARENT).and_then(|parent| TraceContext::parse(parent, header(&TRACESTATE))) {
        telemetry::continue_trace(&span, &parent);
    }
    let trace = telemetry::sampled_context(&span);
    if let Some(trace) = &trace {
        span.record("trace_id", trace.trace_id());
    }
    (span, trace)
}

/// Writes the error body of every response with status 400 or above, also of those made by the router or a library.
fn render_problem(
    mut response: Response,
    (method, path): (&str, &str),
    request_id: &str,
    metrics: &Metrics,
) -> Response {
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if response.status().as_u16() >= 400 => ApiError::from_status(response.status(), method, path),
        None => return response,
    };
    metrics.observe_error(error.code);
    if let Some(cause) = &error.cause {
        tracing::error!(request_id = request_id, error = format!("{cause:#}"), "request failed");
    }
    match openai_error::uses_openai_errors(path) {
        true => openai_error::render(response, error, request_id),
        false => error::render(response, error, request_id),
    }
}

/// Logs a response; those to health probes and metrics scrapes at debug level, because they arrive every few seconds.
fn log_request(route: &str, status: StatusCode, latency: Duration) {
    let (status, latency_ms) = (status.as_u16(), latency.as_secs_f64() * 1e3);
    match route.starts_with("/health") || route == "/metrics" {
        true => tracing::debug!(status, latency_ms, "request finished"),
        false => tracing::info!(status, latency_ms, "request finished"),
    }
}
