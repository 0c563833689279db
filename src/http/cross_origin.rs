//! Refuses writes that a web page of another origin makes in the name of the user (cross-site request forgery).
//!
//! A page cannot know an API key. Browsers send two things by themselves: requests to a server without keys, and the cookie of a session.

use super::auth::{Authenticator, uses_session};
use super::cors::CorsOrigins;
use super::error::ApiError;
use super::state::Settings;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower::{Layer, ServiceExt};
use tower_http::csrf::{CsrfLayer, ProtectionError};

/// Answers 403 to requests that a web page of another origin makes with a method other than GET, HEAD and OPTIONS: on a server without
/// keys those of origins that `--cors-origins` does not name, on a server with keys those that a session authenticates.
pub fn refuse_cross_origin_writes(router: Router, settings: &Settings, authenticator: &Authenticator) -> Router {
    if !authenticator.allows_all() {
        return router.layer(from_fn(refuse_writes_with_session));
    }
    if settings.cors_origins == CorsOrigins::Any {
        return router;
    }
    let trusted = settings.cors_origins.origins().iter().fold(CsrfLayer::new(), |layer, origin| {
        // `CorsOrigins` holds origins alone.
        layer.clone().add_trusted_origin(origin).unwrap_or(layer)
    });
    router.layer(trusted.with_rejection_response(|_: ProtectionError| {
        refusal(
            "a web page of another origin may not change anything on a server without API keys: name its origin in --cors-origins, \
            or set --api-keys (ESPALIER_API_KEYS) and send a key, or call the server from a program",
        )
    }))
}

async fn refuse_writes_with_session(request: Request, next: Next) -> Response {
    if !uses_session(request.headers()) {
        return next.run(request).await;
    }
    let layer = CsrfLayer::new().with_rejection_response(|_: ProtectionError| {
        refusal("a web page of another origin may not use the session of this server's dashboard: send a key")
    });
    match layer.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn refusal(detail: &str) -> Response {
    ApiError::new(StatusCode::FORBIDDEN, "cross_origin_request", detail).into_response()
}
