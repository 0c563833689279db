//! Tests of the extractors.

use super::*;
use crate::http::body_memory::BodyMemory;
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
    let error = read_json_body::<Object>(oversized, 10, timeouts()).await.unwrap_err();
    assert_eq!(error.code, "too_large");
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
    let chunks = body_chunks(request.into_body());
    let error = collect_chunks(chunks, Vec::new(), "the body", 10, &mut timeouts, None).await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (408, "request_timeout"));
}

/// Reads a body of 100 KiB with a memory budget of 120 KiB, of which `other_bytes` are in use.
async fn read_large_body(other_bytes: usize, has_content_length: bool) -> Result<Vec<u32>, (u16, &'static str)> {
    let memory = BodyMemory::new(120 << 10);
    let other = memory.reserve();
    other.grow_to(other_bytes).unwrap();
    let body = format!("{{\"a\": 1{}}}", " ".repeat(100 << 10));
    let mut request = Request::new(Body::from_stream(stream::iter([Ok::<_, std::io::Error>(body.clone())])));
    request.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    if has_content_length {
        request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    }
    request.extensions_mut().insert(memory.reserve());
    let object = read_json_body::<Object>(request, 1 << 20, timeouts()).await;
    object.map(|object| object.into_values().collect()).map_err(|error| (error.status.as_u16(), error.code))
}

#[tokio::test]
async fn large_bodies_beyond_their_memory_are_refused() {
    for has_content_length in [true, false] {
        assert_eq!(read_large_body(10 << 10, has_content_length).await, Ok(vec![1]));
        assert_eq!(read_large_body(40 << 10, has_content_length).await, Err((503, "body_memory_full")));
    }
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
        ("limit=many", "limit: must be a whole number"),
        ("limit=-1", "limit: must be a whole number"),
        ("after=x", "after: must be a UUID"),
        ("page=2", "unknown field `page`"),
        ("limit=1&limit=2", "duplicate field `limit`"),
    ] {
        let detail = read_query(text).await.unwrap_err();
        assert!(detail.contains(word), "{text}: {detail}");
    }
}
