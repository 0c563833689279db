//! Tests of the middleware with routes of their own, which need neither a base model nor a store.

use super::auth::authenticator::TokenSupport;
use super::auth::{Access, Authenticator, Caller};
use super::error::{ApiError, ApiResult, Problem};
use super::{Metrics, Settings, middleware_stack};
use crate::store::OwnerLimits;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Router, middleware};
use espalier_core::error::{Error, FieldError};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tower::Service;
use utoipa_axum::router::OpenApiRouter;

fn test_router() -> Router {
    let access = access(&["secret"]);
    let authenticated = OpenApiRouter::<()>::new()
        .route("/mine", get(|caller: Caller| async move { caller.owner }))
        .route("/wrong", post(|| async { error_response(Error::invalid("bad_rows", "correct them")) }))
        .route("/broken", get(|| async { error_response(Error::internal("the disk is full")) }))
        .route(
            "/busy",
            get(|| async { error_response(Error::busy("queue_full", "wait", Duration::from_millis(1500))) }),
        )
        .route("/panic", get(|| async { panic() }))
        .route("/slow", get(pending::<()>));
    let authenticated = middleware_stack::require_auth(
        middleware_stack::with_deadline(authenticated, Duration::from_millis(1)),
        access.clone(),
    );
    let uploads = OpenApiRouter::<()>::new().route("/mine", post(|| async { "uploaded" }));
    let routes = middleware_stack::require_auth(uploads, access.clone())
        .merge(authenticated)
        .merge(OpenApiRouter::new().route("/open", get(|| async {})));
    middleware_stack::apply_middleware(
        routes.into(),
        &Settings::default(),
        &access.authenticator,
        Arc::new(Metrics::default()),
    )
}

/// Keys of administrators, because the routes of these tests have no line in the table of scopes.
fn access(admin_keys: &[&str]) -> Arc<Access> {
    let authenticator = Authenticator::new(&[], admin_keys, TokenSupport::None, OwnerLimits::default()).unwrap();
    Access::new(Arc::new(authenticator), None, None, Arc::default())
}

fn error_response(error: Error) -> ApiResult<()> {
    let field_errors = vec![FieldError::at_line(3, "no label"), FieldError::at_pointer("/name", "too long")];
    Err(ApiError::from(error).with_field_errors(field_errors))
}

fn panic() -> StatusCode {
    panic!("no reason for {}", "anybody")
}

struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl TestResponse {
    fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(self.headers["x-request-id"], problem.request_id.as_str());
        problem
    }
}

async fn send(request: Request<Body>) -> TestResponse {
    let response = test_router().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
    TestResponse { status: parts.status, headers: parts.headers, body }
}

fn request(method: Method, path: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header("authorization", "Bearer secret");
    builder.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn valid_key_authenticates_the_caller() {
    let got = send(request(Method::GET, "/mine")).await;
    assert_eq!((got.status, got.body.as_slice()), (StatusCode::OK, b"default".as_slice()));
}

#[tokio::test]
async fn missing_key_gets_401_with_www_authenticate() {
    let response = send(Request::builder().uri("/mine").body(Body::empty()).unwrap()).await;
    assert_eq!((response.status, response.problem().code.as_str()), (StatusCode::UNAUTHORIZED, "key_missing"));
    assert_eq!(response.headers["www-authenticate"], "Bearer realm=\"espalier\"");
    let open = send(Request::builder().uri("/open").body(Body::empty()).unwrap()).await;
    assert_eq!(open.status, StatusCode::OK);
}

#[tokio::test]
async fn unknown_route_is_a_problem() {
    let got = send(request(Method::GET, "/nothing")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::NOT_FOUND, "route_not_found"));
    assert!(got.problem().detail.contains("/nothing"));
}

#[tokio::test]
async fn method_not_allowed_lists_the_methods_of_all_route_groups() {
    let got = send(request(Method::DELETE, "/mine")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
    let allow = got.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    assert!(got.problem().detail.contains("DELETE"));
}

#[tokio::test]
async fn error_response_lists_its_field_errors() {
    let problem = send(request(Method::POST, "/wrong")).await.problem();
    assert_eq!((problem.type_uri.as_str(), problem.status), ("urn:espalier:problem:bad_rows", 422));
    assert_eq!((problem.errors[0].line, problem.errors[1].pointer.as_deref()), (Some(3), Some("/name")));
}

#[tokio::test]
async fn internal_error_cause_is_not_exposed() {
    let got = send(request(Method::GET, "/broken")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    assert!(!String::from_utf8(got.body).unwrap().contains("disk"));
}

#[tokio::test]
async fn busy_response_has_retry_after() {
    let got = send(request(Method::GET, "/busy")).await;
    assert_eq!((got.status, got.headers["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "2"));
}

#[tokio::test]
async fn panic_is_an_internal_error() {
    let got = send(request(Method::GET, "/panic")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    assert!(!String::from_utf8(got.body).unwrap().contains("anybody"));
}

#[tokio::test]
async fn request_beyond_its_deadline_gets_503_with_retry_after() {
    let got = send(request(Method::GET, "/slow")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "deadline_exceeded"));
    assert_eq!(got.headers["retry-after"], "1");
}

#[tokio::test]
async fn valid_request_id_is_kept_and_an_invalid_one_replaced() {
    for (sent, kept) in [("trace-1.a_B", true), ("", false), ("two words", false), (&"x".repeat(129), false)] {
        let mut request = request(Method::GET, "/open");
        request.headers_mut().insert("x-request-id", sent.parse().unwrap());
        let got = send(request).await;
        let id = got.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == sent, kept, "{sent}");
        assert!(!id.is_empty());
    }
}

#[tokio::test]
async fn caller_extractor_needs_the_auth_middleware() {
    let router = Router::<()>::new().route("/", get(|caller: Caller| async move { caller.owner }));
    let response = router.clone().call(Request::builder().body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let authenticated = router.layer(middleware::from_fn_with_state(access(&[]), super::auth::authorize));
    let response = authenticated.clone().call(Request::builder().body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.into_response().status(), StatusCode::OK);
}
