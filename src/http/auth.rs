//! Authentication with bearer API keys, stored as SHA-256 digests.
//!
//! Without configured keys every request is accepted. Health checks never need a key, because probes send none; neither do
//! `/docs` and `/openapi.yaml`, because a browser cannot send a key when it loads the page and both reveal nothing about this
//! server. `/metrics` needs a key because it reveals usage; Prometheus can send one.

use super::error::{ApiError, ApiResult};
use crate::store::DEFAULT_OWNER;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use espalier_core::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

/// SHA-256 digests of the accepted keys.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl ApiKeys {
    /// Accepts every request.
    pub fn allow_all() -> Self {
        Self::default()
    }

    /// # Errors
    /// `Invalid` for a key that is empty or not visible ASCII; no client could send it.
    pub fn new<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> Result<Self> {
        let digests = keys.into_iter().map(|key| hash_key(key.as_ref())).collect::<Result<_>>()?;
        Ok(Self { digests })
    }

    pub fn allows_all(&self) -> bool {
        self.digests.is_empty()
    }

    /// Compares with every key in constant time.
    fn accepts(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let found = self.digests.iter().fold(Choice::from(0), |found, expected| found | expected.ct_eq(&digest));
        found.into()
    }
}

fn hash_key(key: &str) -> Result<[u8; 32]> {
    match !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Sha256::digest(key.as_bytes()).into()),
        false => Err(Error::invalid(
            "invalid_key",
            "a key must be one or more visible ASCII characters without spaces: choose another",
        )),
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.digests.len())
    }
}

/// Owner on whose behalf a request is handled. All keys share one owner for now; every row stores its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub owner: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| {
            Error::internal("a route with the Caller extractor is missing the authentication middleware").into()
        })
    }
}

/// Middleware that checks the API key and adds the [`Caller`] to the request.
pub async fn authenticate(
    State(api_keys): State<Arc<ApiKeys>>,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let caller = caller_from_headers(&api_keys, request.headers())?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn caller_from_headers(api_keys: &ApiKeys, headers: &HeaderMap) -> ApiResult<Caller> {
    let caller = Caller { owner: DEFAULT_OWNER.to_string() };
    if api_keys.allows_all() {
        return Ok(caller);
    }
    match bearer_token(headers) {
        None => Err(ApiError::unauthorized(
            "key_missing",
            "this server needs a key: send the header \"Authorization: Bearer <key>\"",
            "Bearer realm=\"espalier\"",
        )),
        Some(key) if api_keys.accepts(key) => Ok(caller),
        Some(_) => Err(ApiError::unauthorized(
            "key_wrong",
            "the key is not one of this server's: ask its operator",
            "Bearer realm=\"espalier\", error=\"invalid_token\"",
        )),
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers_with_authorization(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn every_caller_is_allowed_without_keys() {
        assert!(caller_from_headers(&ApiKeys::allow_all(), &HeaderMap::new()).is_ok());
    }

    #[test]
    fn only_configured_keys_are_accepted() {
        let keys = ApiKeys::new(["first", "second"]).unwrap();
        for (header, code) in [("Bearer first", None), ("bearer second", None), ("Bearer third", Some("key_wrong"))] {
            assert_eq!(
                caller_from_headers(&keys, &headers_with_authorization(header)).err().map(|error| error.code),
                code,
                "{header}"
            );
        }
        for header in ["Basic first", "first", "Bearer"] {
            assert_eq!(
                caller_from_headers(&keys, &headers_with_authorization(header)).unwrap_err().code,
                "key_missing",
                "{header}"
            );
        }
    }

    #[test]
    fn unauthorized_response_has_www_authenticate() {
        let error = caller_from_headers(&ApiKeys::new(["key"]).unwrap(), &HeaderMap::new()).unwrap_err();
        assert_eq!(error.headers[0].1, "Bearer realm=\"espalier\"");
    }

    #[test]
    fn keys_that_are_not_visible_ascii_are_rejected() {
        for key in ["", "two words", "clé"] {
            assert_eq!(ApiKeys::new([key]).unwrap_err().code(), "invalid_key");
        }
    }

    #[test]
    fn keys_are_not_shown_in_debug_output() {
        assert_eq!(format!("{:?}", ApiKeys::new(["secret"]).unwrap()), "Keys(1)");
    }
}
