//! Middleware that authenticates a request, checks its scopes and limits, and writes changes to the audit log.

use super::audit::{self, AuditContext};
use super::authenticator::{Authentication, Authenticator};
use super::caller::Caller;
use super::credential::Credential;
use super::limits::{self, Admission, RequestCost};
use super::route_scopes::{Activity, RoutePolicy};
use super::sent_credential::sent_key;
use crate::http::error::{ApiError, ApiResult};
use crate::http::guarded_body::GuardedBody;
use crate::http::jwt::JwtVerifier;
use crate::store::{Scope, Store};
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Result};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// Minimum time between two looks into the database for a key that is not known.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit of such a look.
const UNKNOWN_KEY_TIMEOUT: Duration = Duration::from_secs(1);

/// Authentication, and where its keys and the audit log are stored.
pub struct Access {
    pub authenticator: Arc<Authenticator>,
    store: Option<Arc<dyn Store>>,
    /// Verifies tokens of an OpenID Connect provider.
    tokens: Option<Arc<JwtVerifier>>,
    /// Operation ids, by method and route.
    operations: audit::Operations,
    /// Time of the last look into the database for a key that is not known.
    last_look: Mutex<Option<Instant>>,
}

impl Access {
    /// Without a store, the keys of the settings alone are accepted, and nothing is written to the audit log.
    pub fn new(
        authenticator: Arc<Authenticator>,
        store: Option<Arc<dyn Store>>,
        tokens: Option<Arc<JwtVerifier>>,
        operations: audit::Operations,
    ) -> Arc<Self> {
        Arc::new(Self { authenticator, store, tokens, operations, last_look: Mutex::default() })
    }

    /// Authenticates a request. A key that is not known may have been created by another process a moment ago.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Authentication {
        if let (Some(verifier), Some(token)) = (&self.tokens, sent_key(headers))
            && JwtVerifier::is_jwt(token)
        {
            return self.verify_token(verifier, token).await;
        }
        let found = self.authenticator.authenticate(headers, now());
        if !matches!(found, Authentication::WrongKey | Authentication::EndedSession) {
            return found;
        }
        match self.look_for_changes().await {
            Ok(true) => self.authenticator.authenticate(headers, now()),
            Ok(false) => found,
            Err(error) => {
                tracing::warn!(%error, "keys cannot be read from the database");
                found
            }
        }
    }

    /// Scopes that this server does not know are of other services.
    async fn verify_token(&self, verifier: &JwtVerifier, token: &str) -> Authentication {
        let now = u64::try_from(now().timestamp()).unwrap_or_default();
        match verifier.verify(token, now).await {
            Ok(claims) => {
                let scopes = claims.scopes.iter().filter_map(|name| Scope::parse(name)).collect();
                let owner = self.authenticator.owner(&claims.owner);
                Authentication::Key(Arc::new(Credential::new(format!("jwt:{}", claims.subject), scopes, owner)))
            }
            Err(error) => Authentication::WrongToken(error),
        }
    }

    /// Returns the token of a session until `expires_at` (seconds since 1970), or `None` if the key is wrong.
    pub async fn sign_session(&self, key: &str, expires_at: u64) -> Option<String> {
        if let Some(token) = self.authenticator.sign_session(key, expires_at, now()) {
            return Some(token);
        }
        match self.look_for_changes().await {
            Ok(true) => self.authenticator.sign_session(key, expires_at, now()),
            Ok(false) | Err(_) => None,
        }
    }

    /// Reads the keys again if they have changed; at most one request at a time and seldom.
    async fn look_for_changes(&self) -> Result<bool> {
        let (Some(store), Ok(mut last_look)) = (&self.store, self.last_look.try_lock()) else { return Ok(false) };
        if last_look.is_some_and(|time| time.elapsed() < UNKNOWN_KEY_INTERVAL) {
            return Ok(false);
        }
        *last_look = Some(Instant::now());
        timeout(UNKNOWN_KEY_TIMEOUT, refresh(&self.authenticator, store.as_ref())).await.context("reading the keys")?
    }
}

/// Reads the keys and owners if their version has changed. Returns whether it has.
pub async fn refresh(authenticator: &Authenticator, store: &dyn Store) -> Result<bool> {
    if store.access_version().await? == authenticator.version() {
        return Ok(false);
    }
    authenticator.replace(store.access_snapshot().await?);
    Ok(true)
}

/// Time of this machine's clock.
pub fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

pub async fn authorize(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> ApiResult<Response> {
    let authentication = access.authenticate(request.headers()).await;
    let Some(credential) = authentication.credential().cloned() else { return Err(unauthorized(authentication)) };
    credential.record_use(now());
    tracing::Span::current().record("owner", credential.owner.name.as_str());
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let policy = RoutePolicy::of(request.method(), route);
    let audit_context = match policy.activity {
        Activity::Change => Some(AuditContext::new(&access.operations, &request, &credential)),
        Activity::Read | Activity::Infer | Activity::Compute => None,
    };
    request.extensions_mut().insert(Caller::new(Arc::clone(&credential)));
    let admission = admit(&credential, policy);
    if let Err(error) = &admission
        && error.status == StatusCode::TOO_MANY_REQUESTS
    {
        // Not in the audit log: a flood of refused requests must not become one of writes.
        return Err(error.clone());
    }
    match (audit_context, access.store.clone()) {
        (Some(context), Some(store)) => {
            // The change and its entry are completed even if the client disconnects.
            let change = async move {
                let response = match admission {
                    Ok(admission) => respond(admission, request, next).await,
                    Err(error) => error.into_response(),
                };
                audit::write(&store, context.into_entry(&response)).await;
                response
            };
            Ok(tokio::spawn(change.in_current_span()).await.context("changing something")?)
        }
        _ => Ok(respond(admission?, request, next).await),
    }
}

fn admit(credential: &Credential, policy: RoutePolicy) -> ApiResult<Admission> {
    if !policy.scopes.is_empty() && !credential.scopes.contains_any(policy.scopes) {
        let names: Vec<&str> = policy.scopes.iter().map(|scope| Scope::as_str(*scope)).collect();
        return Err(ApiError::missing_scope(&names.join(" or ")));
    }
    let cost = match policy.activity {
        Activity::Read => RequestCost::Read,
        Activity::Infer => RequestCost::Tokens,
        Activity::Compute | Activity::Change => RequestCost::Request,
    };
    limits::admit(&credential.limiter, &credential.owner.limiter, cost)
}

async fn respond(admission: Admission, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().extend(admission.headers());
    // Nothing between server and client keeps what belongs to one caller.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    match admission.holds_permits() {
        true => response.map(|body| Body::new(GuardedBody::new(body, admission))),
        false => response,
    }
}

fn unauthorized(authentication: Authentication) -> ApiError {
    match authentication {
        Authentication::EndedSession => ApiError::unauthorized(
            "session_ended",
            "the session has ended: sign in again",
            "Bearer realm=\"espalier\", error=\"invalid_token\"",
        ),
        Authentication::Missing => ApiError::unauthorized(
            "key_missing",
            "this server needs a key: send the header \"Authorization: Bearer <key>\"",
            "Bearer realm=\"espalier\"",
        ),
        Authentication::WrongToken(error) => error.into(),
        _ => ApiError::wrong_key(),
    }
}
