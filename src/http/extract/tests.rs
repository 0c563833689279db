//! Tests of the extractors.

use super::*;
use crate::http::pagination::ListQuery;
use futures_util::stream;
use std::collections::BTreeMap;
use std::time::Duration;

type Object = BTreeMap<String, u32>;

fn timeouts() -> BodyTimeouts {
    BodyTimeouts::new(Duration::from_secs(60), 1, Duration::from_secs(60))
}

async fn read_body(content_type: Option<&str>, body: impl Into<Body>) -> (u16, String) {
    let mut request = Request::new(body.into());
    if let Some(kind) = content_type {
        request.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
    }
    match read_json_body::<Object>(request, 10, timeouts()).await {
        Ok(_) => (200, String::new()),
        Err(error) => (error.status.as_u16(), error.detail),
    }
}

#[tokio::test]
async fn json_body_needs_a_json_content_type() {
    for kind in ["application/json", "application/json; charset=utf-8", "application/vnd.x+json", "Application/JSON"] {
        assert_eq!(read_body(Some(kind), "{\"a\": 1}").await.0, 200, "{kind}");
    }
    for kind in [Some("text/plain"), Some("application/x-www-form-urlencoded"), Some(""), None] {
        let (status, detail) = read_body(kind, "{\"a\": 1}").await;
        assert!(status == 415 && detail.contains("application/json"), "{kind:?}: {status} {detail}");
    }
}

#[tokio::test]
async fn oversized_body_is_rejected() {
    assert_eq!(read_body(Some("application/json"), "{\"aa\": 123}").await.0, 413);
    let mut oversized = Request::new(Body::empty());
    oversized.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    oversized.headers_mut().insert(CONTENT_LENGTH, "11".parse().unwrap());
    assert_eq!(read_json_body::<Object>(oversized, 10, timeouts()).await.unwrap_err().code, "too_large");
}

#[tokio::test]
async fn truncated_body_is_a_bad_request() {
    let broken_body = Body::from_stream(stream::iter([Ok("{\"a\""), Err(std::io::Error::other("reset"))]));
    assert_eq!(read_body(Some("application/json"), broken_body).await.0, 400);
}

#[tokio::test]
async fn stalled_body_times_out() {
    let request = Request::new(Body::from_stream(stream::pending::<std::io::Result<&str>>()));
    let mut timeouts = BodyTimeouts::new(Duration::from_secs(60), 1, Duration::from_millis(1));
    let error = collect_chunks(body_chunks(request.into_body()), "the body", 10, &mut timeouts).await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (408, "request_timeout"));
}

async fn read_query(query: &str) -> Result<ListQuery, String> {
    let (mut parts, ()) = Request::builder().uri(format!("/jobs?{query}")).body(()).unwrap().into_parts();
    let parsed = QueryParams::<ListQuery>::from_request_parts(&mut parts, &()).await;
    parsed.map(|query| query.0).map_err(|error| {
        assert_eq!((error.status.as_u16(), error.code), (422, "invalid_query"));
        error.detail
    })
}

#[tokio::test]
async fn invalid_query_parameter_is_named() {
    assert_eq!(read_query("limit=3").await.unwrap().limit, Some(3));
    for (text, word) in [
        ("limit=many", "limit: invalid digit"),
        ("limit=-1", "limit: invalid digit"),
        ("after=x", "after: UUID parsing failed"),
        ("page=2", "unknown field `page`"),
        ("limit=1&limit=2", "duplicate field `limit`"),
    ] {
        let detail = read_query(text).await.unwrap_err();
        assert!(detail.contains(word), "{text}: {detail}");
    }
}
