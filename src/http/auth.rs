//! Authentication with API keys, stored as SHA-256 digests and sent as bearer tokens or, by clients of Azure OpenAI, in `api-key`; or with
//! the cookie of a session (`session_token`).
//!
//! Without configured keys every request is accepted. Health checks never need a key, because probes send none; neither do
//! the dashboard's files, `/docs` and `/openapi.yaml`, because a browser cannot send a key when it loads the page and they reveal nothing
//! about this server. `/metrics` needs a key because it reveals usage; Prometheus can send one.

use super::error::{ApiError, ApiResult};
use super::session_token::{self, SESSION_COOKIE};
use crate::store::DEFAULT_OWNER;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use espalier_core::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use subtle::{Choice, ConstantTimeEq};

/// Header of clients of Azure OpenAI.
pub const API_KEY: HeaderName = HeaderName::from_static("api-key");

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

    /// Returns the token of a session until `expires_at` (seconds since 1970), or `None` if the key is wrong.
    pub fn sign_session(&self, key: &str, expires_at: u64) -> Option<String> {
        self.accepts(key).then(|| session_token::sign(&Sha256::digest(key.as_bytes()).into(), expires_at))
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
    match session_state(api_keys, headers) {
        SessionState::NoKeys | SessionState::SignedIn { .. } => Ok(Caller { owner: DEFAULT_OWNER.to_string() }),
        SessionState::SignedOut => Err(match (sent_key(headers), session_cookie(headers)) {
            (Some(_), _) => ApiError::wrong_key(),
            (None, Some(_)) => ApiError::unauthorized(
                "session_ended",
                "the session has ended: sign in again",
                "Bearer realm=\"espalier\", error=\"invalid_token\"",
            ),
            (None, None) => ApiError::unauthorized(
                "key_missing",
                "this server needs a key: send the header \"Authorization: Bearer <key>\"",
                "Bearer realm=\"espalier\"",
            ),
        }),
    }
}

/// Authentication of a request.
pub enum SessionState {
    /// The server has no keys.
    NoKeys,
    /// The request has a key, or a session that ends at a time (seconds since 1970).
    SignedIn {
        expires_at: Option<u64>,
    },
    SignedOut,
}

/// Authenticates a request by its key or, without one, by the cookie of its session.
pub fn session_state(api_keys: &ApiKeys, headers: &HeaderMap) -> SessionState {
    if api_keys.allows_all() {
        return SessionState::NoKeys;
    }
    match (sent_key(headers), session_cookie(headers)) {
        (Some(key), _) if api_keys.accepts(key) => SessionState::SignedIn { expires_at: None },
        (None, Some(token)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |duration| duration.as_secs());
            match session_token::verify(&api_keys.digests, token, now) {
                Some(expires_at) => SessionState::SignedIn { expires_at: Some(expires_at) },
                None => SessionState::SignedOut,
            }
        }
        (Some(_), _) | (None, None) => SessionState::SignedOut,
    }
}

/// Returns whether a session's cookie authenticates the request, as a browser adds it by itself.
pub fn uses_session(headers: &HeaderMap) -> bool {
    sent_key(headers).is_none() && session_cookie(headers).is_some()
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token)
}

/// Returns the key of a request: the bearer token, or the value of `api-key`.
fn sent_key(headers: &HeaderMap) -> Option<&str> {
    bearer_token(headers).or_else(|| headers.get(API_KEY)?.to_str().ok().map(str::trim))
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
    fn session_ends_with_its_time_and_yields_to_a_key() {
        let keys = ApiKeys::new(["secret"]).unwrap();
        let headers_with_cookie = |token: &str| {
            HeaderMap::from_iter([(COOKIE, format!("theme=dark; {SESSION_COOKIE}={token}").parse().unwrap())])
        };
        let code = |headers: &HeaderMap| caller_from_headers(&keys, headers).err().map(|error| error.code);
        assert!(keys.sign_session("other", u64::MAX).is_none());
        let mut headers = headers_with_cookie(&keys.sign_session("secret", u64::MAX).unwrap());
        assert_eq!(code(&headers), None);
        assert_eq!(code(&headers_with_cookie(&keys.sign_session("secret", 1).unwrap())), Some("session_ended"));
        assert_eq!(code(&headers_with_cookie("")), Some("session_ended"));
        headers.insert(AUTHORIZATION, "Bearer wrong".parse().unwrap());
        assert_eq!(code(&headers), Some("key_wrong"));
        assert!(!uses_session(&headers));
    }

    #[test]
    fn key_may_be_in_the_header_of_azure() {
        let keys = ApiKeys::new(["first"]).unwrap();
        let with_key = |key: &str| HeaderMap::from_iter([(API_KEY, key.parse().unwrap())]);
        assert!(caller_from_headers(&keys, &with_key("first")).is_ok());
        assert_eq!(caller_from_headers(&keys, &with_key("second")).unwrap_err().code, "key_wrong");
        let mut both = with_key("first");
        both.extend(headers_with_authorization("Bearer second"));
        assert_eq!(caller_from_headers(&keys, &both).unwrap_err().code, "key_wrong");
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
