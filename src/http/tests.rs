//! What every request goes through, on routes of its own: the real ones need a base model and a store.

use super::auth::{Caller, Keys, check};
use super::error::{Answer, Refusal};
use super::problem::Problem;
use super::{Metrics, Settings, layers};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Router, middleware};
use espalier_core::error::{Error, Fault};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tower::Service;
use utoipa_axum::router::OpenApiRouter;

fn router() -> Router {
    let keys = Arc::new(Keys::new(["secret"]).unwrap());
    let guarded = OpenApiRouter::<()>::new()
        .route("/mine", get(|caller: Caller| async move { caller.owner }))
        .route("/wrong", post(|| async { refused(Error::invalid("bad_rows", "correct them")) }))
        .route("/broken", get(|| async { refused(Error::internal("the disk is full")) }))
        .route("/busy", get(|| async { refused(Error::busy("queue_full", "wait", Duration::from_millis(1500))) }))
        .route("/panic", get(|| async { panic() }))
        .route("/slow", get(pending::<()>));
    let guarded = layers::guarded(layers::timed(guarded, Duration::from_millis(1)), keys.clone());
    let uploads = OpenApiRouter::<()>::new().route("/mine", post(|| async { "uploaded" }));
    let all =
        layers::guarded(uploads, keys).merge(guarded).merge(OpenApiRouter::new().route("/open", get(|| async {})));
    layers::dress(all.into(), &Settings::default(), Arc::new(Metrics::default()))
}

fn refused(error: Error) -> Answer<()> {
    let faults = vec![Fault::at_line(3, "no label"), Fault::at_pointer("/name", "too long")];
    Err(Refusal::from(error).with_faults(faults))
}

fn panic() -> StatusCode {
    panic!("no reason for {}", "anybody")
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(self.headers["x-request-id"], problem.request_id.as_str());
        problem
    }
}

async fn send(request: Request<Body>) -> Got {
    let response = router().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
    Got { status: parts.status, headers: parts.headers, body }
}

fn request(method: Method, path: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header("authorization", "Bearer secret");
    builder.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_caller_with_a_key_is_let_in_and_known() {
    let got = send(request(Method::GET, "/mine")).await;
    assert_eq!((got.status, got.body.as_slice()), (StatusCode::OK, b"default".as_slice()));
}

#[tokio::test]
async fn a_caller_without_a_key_is_told_how_to_send_one() {
    let got = send(Request::builder().uri("/mine").body(Body::empty()).unwrap()).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::UNAUTHORIZED, "key_missing"));
    assert_eq!(got.headers["www-authenticate"], "Bearer realm=\"espalier\"");
    let open = send(Request::builder().uri("/open").body(Body::empty()).unwrap()).await;
    assert_eq!(open.status, StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_route_is_a_problem() {
    let got = send(request(Method::GET, "/nothing")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::NOT_FOUND, "route_not_found"));
    assert!(got.problem().detail.contains("/nothing"));
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones_of_all_groups() {
    let got = send(request(Method::DELETE, "/mine")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
    let allow = got.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    assert!(got.problem().detail.contains("DELETE"));
}

#[tokio::test]
async fn a_refusal_names_its_faults() {
    let problem = send(request(Method::POST, "/wrong")).await.problem();
    assert_eq!((problem.kind.as_str(), problem.status), ("urn:espalier:problem:bad_rows", 422));
    assert_eq!((problem.errors[0].line, problem.errors[1].pointer.as_deref()), (Some(3), Some("/name")));
}

#[tokio::test]
async fn an_internal_error_is_not_shown() {
    let got = send(request(Method::GET, "/broken")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    assert!(!String::from_utf8(got.body).unwrap().contains("disk"));
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    let got = send(request(Method::GET, "/busy")).await;
    assert_eq!((got.status, got.headers["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "2"));
}

#[tokio::test]
async fn a_panic_is_an_internal_problem() {
    let got = send(request(Method::GET, "/panic")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    assert!(!String::from_utf8(got.body).unwrap().contains("anybody"));
}

#[tokio::test]
async fn a_request_beyond_its_deadline_may_be_tried_again() {
    let got = send(request(Method::GET, "/slow")).await;
    assert_eq!((got.status, got.problem().code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "deadline_exceeded"));
    assert_eq!(got.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_replaced() {
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
async fn a_route_that_asks_who_calls_must_be_guarded() {
    let router = Router::<()>::new().route("/", get(|caller: Caller| async move { caller.owner }));
    let answer = router.clone().call(Request::builder().body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let guarded = router.layer(middleware::from_fn_with_state(Arc::new(Keys::open()), check));
    let answer = guarded.clone().call(Request::builder().body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.into_response().status(), StatusCode::OK);
}
