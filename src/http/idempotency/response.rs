//! Stored responses.

use crate::http::error::{ApiError, ApiResult};
use crate::http::idempotency_header::IDEMPOTENT_REPLAYED;
use crate::store::StoredResponse;
use axum::body::{Body, HttpBody, to_bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use espalier_core::error::Context;

/// Headers that are stored; the others belong to the connection or to one attempt.
const STORED_HEADERS: [HeaderName; 3] = [CONTENT_TYPE, LOCATION, HeaderName::from_static("x-ignored-fields")];

/// Returns what is stored of a response, and the response. The body is left out if it is larger than `max_bytes`, or if the header
/// `cache-control: no-store` says that it holds a secret.
pub(super) async fn to_stored(response: Response, max_bytes: u64) -> (StoredResponse, Response) {
    let (parts, body) = response.into_parts();
    let text = |name: &HeaderName| Some((name.to_string(), parts.headers.get(name)?.to_str().ok()?.to_string()));
    let headers = STORED_HEADERS.iter().filter_map(text).collect();
    let is_storable = !is_secret(&parts.headers) && body.size_hint().exact().is_some_and(|bytes| bytes <= max_bytes);
    let status = parts.status.as_u16();
    let (stored_body, body) = match is_storable {
        false => (None, body),
        true => match to_bytes(body, usize::MAX).await {
            Ok(bytes) => (std::str::from_utf8(&bytes).ok().map(str::to_string), Body::from(bytes)),
            Err(error) => (None, Body::from_stream(futures_util::stream::once(async { Err::<Vec<u8>, _>(error) }))),
        },
    };
    (StoredResponse { status, headers, body: stored_body }, Response::from_parts(parts, body))
}

fn is_secret(headers: &HeaderMap) -> bool {
    headers.get(CACHE_CONTROL).is_some_and(|value| value.as_bytes() == b"no-store")
}

/// Returns the stored response, marked as such.
///
/// # Errors
/// 409 if the body was not stored.
pub(super) fn replay(stored: StoredResponse) -> ApiResult<Response> {
    let Some(body) = stored.body else { return Err(not_stored(&stored.headers)) };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(stored.status).context("reading a stored response")?;
    for (name, value) in &stored.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn not_stored(headers: &[(String, String)]) -> ApiError {
    let location = headers.iter().find(|(name, _)| name == LOCATION.as_str());
    let place =
        location.map_or_else(|| "the list shows it".to_string(), |(_, location)| format!("GET {location} shows it"));
    let detail = format!(
        "the request with this Idempotency-Key was carried out, and its answer was not stored, because it is large or holds a \
         secret: {place}"
    );
    ApiError::new(StatusCode::CONFLICT, "idempotent_response_not_stored", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Json;
    use axum::response::IntoResponse;
    use serde_json::json;

    async fn body_of(response: Response) -> String {
        String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn response_is_replayed_as_it_was() {
        let original = || (StatusCode::ACCEPTED, [(LOCATION, "/jobs/1")], Json(json!({"id": 1}))).into_response();
        let (stored, sent) = to_stored(original(), 100).await;
        let replayed = replay(stored).unwrap();
        assert_eq!(replayed.status(), StatusCode::ACCEPTED);
        assert_eq!(replayed.headers()[LOCATION], "/jobs/1");
        assert_eq!(replayed.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(replayed.headers()[IDEMPOTENT_REPLAYED], "true");
        assert_eq!(body_of(replayed).await, body_of(sent).await);
        let (no_content, _) = to_stored(StatusCode::NO_CONTENT.into_response(), 100).await;
        assert_eq!(replay(no_content).unwrap().status(), StatusCode::NO_CONTENT);
    }

    #[tokio::test]
    async fn large_and_secret_responses_are_not_stored() {
        let original =
            || (StatusCode::CREATED, [(LOCATION, "/keys/1")], Json(json!({"key": "secret"}))).into_response();
        let mut secret = original();
        secret.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (response, limit) in [(secret, 100), (original(), 4)] {
            let (stored, sent) = to_stored(response, limit).await;
            assert_eq!(stored.body, None);
            assert_eq!(body_of(sent).await, r#"{"key":"secret"}"#);
            let error = replay(stored).unwrap_err();
            assert_eq!((error.status, error.code), (StatusCode::CONFLICT, "idempotent_response_not_stored"));
            assert!(error.detail.contains("GET /keys/1"), "{}", error.detail);
        }
    }
}
