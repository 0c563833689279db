//! What every request passes through: its id, its log line and metrics, its deadline, and a net below panics.
//!
//! Knows nothing of single routes.

use super::auth::Keys;
use super::error::{Answer, Refusal};
use super::leftover::read_to_the_end;
use super::metrics::Metrics;
use super::settings::Settings;
use super::{openai, problem};
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use espalier_core::error::Error;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tracing::Instrument;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Long enough for any tracing system's ids.
const MAX_ID: usize = 128;
/// What a form's boundaries and headers may add to its parts.
const FORM_OVERHEAD: u64 = 64 * 1024;

/// Only callers with a key pass.
pub fn guarded<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>, keys: Arc<Keys>) -> OpenApiRouter<S> {
    routes.route_layer(from_fn_with_state(keys, super::auth::check))
}

/// Answers before the deadline, or says that it could not.
pub fn timed<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>, deadline: Duration) -> OpenApiRouter<S> {
    routes.route_layer(from_fn_with_state(deadline, answer_in_time))
}

/// The outer layers of the whole router.
pub fn dress(router: Router, settings: &Settings, metrics: Arc<Metrics>) -> Router {
    let largest = settings.max_dataset_bytes.max(settings.max_adapter_bytes);
    let form = largest.saturating_add(settings.max_json_bytes as u64).saturating_add(FORM_OVERHEAD);
    router
        .layer(DefaultBodyLimit::max(usize::try_from(form).unwrap_or(usize::MAX)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(map_request(read_to_the_end))
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, COOKIE]))
        .layer(from_fn_with_state(metrics, observe))
}

async fn answer_in_time(State(deadline): State<Duration>, request: Request, next: Next) -> Answer<Response> {
    tokio::time::timeout(deadline, next.run(request)).await.map_err(|_| {
        let detail = format!("no answer within {} seconds: try again later", deadline.as_secs_f64());
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "deadline_exceeded", detail).retry_after(Duration::from_secs(1))
    })
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    Refusal::from(Error::internal(format!("panic: {}", message.unwrap_or("without a message")))).into_response()
}

async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_string();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_string();
    let span = tracing::info_span!("request", request_id = id, %method, route);
    let started = Instant::now();
    let answer = async {
        let _in_flight = metrics.enter();
        let response = explain(next.run(request).await, method.as_str(), &path, &id);
        metrics.observe(method.as_str(), &route, response.status(), started.elapsed());
        log(&route, response.status(), started.elapsed());
        response
    };
    let mut response = answer.instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Every answer of 400 and more leaves as a problem, also where the router or a library gave it.
fn explain(mut response: Response, method: &str, path: &str, id: &str) -> Response {
    let refusal = match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => refusal,
        None if response.status().as_u16() >= 400 => Refusal::plain(response.status(), method, path),
        None => return response,
    };
    if let Some(cause) = &refusal.cause {
        tracing::error!(request_id = id, error = format!("{cause:#}"), "request failed");
    }
    match openai::error::speaks(path) {
        true => openai::error::render(response, refusal, id),
        false => problem::render(response, refusal, id),
    }
}

/// Probes and scrapes come every few seconds: they are not worth a line each.
fn log(route: &str, status: StatusCode, latency: Duration) {
    let (status, latency_ms) = (status.as_u16(), latency.as_secs_f64() * 1e3);
    match route.starts_with("/health") || route == "/metrics" {
        true => tracing::debug!(status, latency_ms, "answered"),
        false => tracing::info!(status, latency_ms, "answered"),
    }
}

/// The client's own id where it is harmless in logs, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=MAX_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(sane);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_string)
}
