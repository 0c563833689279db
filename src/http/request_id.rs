//! Id of a request: the client's `x-request-id` if it is short and has only safe characters, or a new one.

use axum::http::{HeaderMap, HeaderName};
use uuid::Uuid;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are replaced; ids of the usual tracing systems are shorter.
const MAX_LENGTH: usize = 128;

/// Id of the request, as an extension of it.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

impl RequestId {
    pub fn of(headers: &HeaderMap) -> Self {
        let is_valid = |id: &&str| {
            (1..=MAX_LENGTH).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let client_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_valid);
        Self(client_id.map_or_else(|| Uuid::now_v7().to_string(), str::to_string))
    }
}
