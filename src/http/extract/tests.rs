//! What of a request is refused before a handler sees it. Knows only the extractors.

use super::*;
use crate::http::lists::ListQuery;
use futures_util::stream;
use std::collections::BTreeMap;

type Object = BTreeMap<String, u32>;

fn pace() -> Pace {
    Pace::new(Duration::from_secs(60), Duration::from_secs(60))
}

async fn body(content_type: Option<&str>, body: impl Into<Body>) -> (u16, String) {
    let mut request = Request::new(body.into());
    if let Some(kind) = content_type {
        request.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
    }
    match body_of::<Object>(request, 10, pace()).await {
        Ok(_) => (200, String::new()),
        Err(refusal) => (refusal.status.as_u16(), refusal.detail),
    }
}

#[tokio::test]
async fn json_is_read_only_as_json() {
    for kind in ["application/json", "application/json; charset=utf-8", "application/vnd.x+json", "Application/JSON"] {
        assert_eq!(body(Some(kind), "{\"a\": 1}").await.0, 200, "{kind}");
    }
    for kind in [Some("text/plain"), Some("application/x-www-form-urlencoded"), Some(""), None] {
        let (status, detail) = body(kind, "{\"a\": 1}").await;
        assert!(status == 415 && detail.contains("application/json"), "{kind:?}: {status} {detail}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    assert_eq!(body(Some("application/json"), "{\"aa\": 123}").await.0, 413);
    let mut announced = Request::new(Body::empty());
    announced.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    announced.headers_mut().insert(CONTENT_LENGTH, "11".parse().unwrap());
    assert_eq!(body_of::<Object>(announced, 10, pace()).await.unwrap_err().code, "too_large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_unreadable() {
    let broken = Body::from_stream(stream::iter([Ok("{\"a\""), Err(std::io::Error::other("reset"))]));
    assert_eq!(body(Some("application/json"), broken).await.0, 400);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused() {
    let request = Request::new(Body::from_stream(stream::pending::<std::io::Result<&str>>()));
    let pace = Pace::new(Duration::from_secs(60), Duration::from_millis(1));
    let refusal = collect(pieces(request.into_body()), "the body", 10, pace).await.unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.code), (408, "request_timeout"));
}

async fn query(query: &str) -> Result<ListQuery, String> {
    let (mut parts, ()) = Request::builder().uri(format!("/jobs?{query}")).body(()).unwrap().into_parts();
    let read = Params::<ListQuery>::from_request_parts(&mut parts, &()).await;
    read.map(|query| query.0).map_err(|refusal| {
        assert_eq!((refusal.status.as_u16(), refusal.code), (422, "invalid_query"));
        refusal.detail
    })
}

#[tokio::test]
async fn a_wrong_query_is_refused_by_name() {
    assert_eq!(query("limit=3").await.unwrap().limit, Some(3));
    for (text, word) in [
        ("limit=many", "limit: invalid digit"),
        ("limit=-1", "limit: invalid digit"),
        ("after=x", "after: UUID parsing failed"),
        ("page=2", "unknown field `page`"),
        ("limit=1&limit=2", "duplicate field `limit`"),
    ] {
        let detail = query(text).await.unwrap_err();
        assert!(detail.contains(word), "{text}: {detail}");
    }
}
