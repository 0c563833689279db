//! Credentials that a request sends: a bearer token, the key of clients of Azure OpenAI, or the cookie of a session.

use super::session_token::SESSION_COOKIE;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, HeaderName};

/// Header of clients of Azure OpenAI.
pub const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Returns whether a session's cookie authenticates the request, as a browser adds it by itself.
pub fn uses_session(headers: &HeaderMap) -> bool {
    sent_key(headers).is_none() && session_cookie(headers).is_some()
}

pub fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token)
}

/// Returns the key or token of a request: the bearer token, or the value of `api-key`.
pub fn sent_key(headers: &HeaderMap) -> Option<&str> {
    bearer_token(headers).or_else(|| headers.get(API_KEY)?.to_str().ok().map(str::trim))
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}
