//! `/session`: sign-in of web pages of this server, which cannot keep an API key safely. The key is exchanged for a cookie that scripts
//! cannot read and that no other site's pages send.

use super::auth::Authentication;
use super::auth::session_token::SESSION_COOKIE;
use super::error::{ApiError, ApiResult};
use super::extract::Json;
use super::openapi::Conflict;
use super::state::AppState;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use espalier_core::error::Error;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_session, create_session, delete_session))
}

/// Session of a browser.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// Whether this server has API keys. Without keys every request is accepted.
    pub key_required: bool,
    /// Whether the request may call the API.
    pub signed_in: bool,
    /// End of the session; `null` without one.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Key to sign in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// One of the API keys of this server.
    pub key: String,
}

/// Get the session
///
/// Whether this server needs an API key, and whether the request has one or a session.
#[utoipa::path(
    get, path = "/session", operation_id = "get_session", tag = "operations", security(()),
    responses((status = 200, description = "Session of the caller.", body = Session,
        example = json!({"key_required": true, "signed_in": false, "expires_at": null}))),
)]
async fn get_session(state: AppState, headers: HeaderMap) -> axum::Json<Session> {
    axum::Json(match state.access.authenticate(&headers).await {
        Authentication::Anonymous(_) => Session { key_required: false, signed_in: true, expires_at: None },
        Authentication::Key(_) => Session { key_required: true, signed_in: true, expires_at: None },
        Authentication::Session(_, expires_at) => {
            Session { key_required: true, signed_in: true, expires_at: date(expires_at) }
        }
        Authentication::WrongKey
        | Authentication::WrongToken(_)
        | Authentication::EndedSession
        | Authentication::Missing => Session { key_required: true, signed_in: false, expires_at: None },
    })
}

/// Sign in
///
/// Exchanges an API key for a session, for the dashboard. The answer sets a cookie (`HttpOnly`, `SameSite=Strict`) that authenticates
/// requests until the session ends (`--session-lifetime`). Programs send the key itself with every request instead.
#[utoipa::path(
    post, path = "/session", operation_id = "create_session", tag = "operations", security(()),
    request_body(content = SignIn, example = json!({"key": "a key of this server"})),
    responses((status = 200, description = "The session.", body = Session,
        example = json!({"key_required": true, "signed_in": true, "expires_at": "2026-01-05T21:30:00Z"})),
        (status = 401, description = "The key is not one of this server's."), Conflict),
)]
async fn create_session(state: AppState, headers: HeaderMap, Json(sign_in): Json<SignIn>) -> ApiResult<Response> {
    if state.access.authenticator.allows_all() {
        let detail = "this server has no API keys: requests need no session";
        return Err(Error::conflict("no_api_keys", detail).into());
    }
    let lifetime = state.settings.session_lifetime;
    let expires_at = seconds_since_1970(SystemTime::now() + lifetime);
    let token = state.access.sign_session(sign_in.key.trim(), expires_at).await.ok_or_else(ApiError::wrong_key)?;
    let session = Session { key_required: true, signed_in: true, expires_at: date(expires_at) };
    Ok(([(SET_COOKIE, cookie(&token, lifetime, &headers))], axum::Json(session)).into_response())
}

/// Sign out
///
/// The session cookie is removed.
#[utoipa::path(
    delete, path = "/session", operation_id = "delete_session", tag = "operations", security(()),
    responses((status = 204, description = "The browser has no session any more.")),
)]
async fn delete_session(headers: HeaderMap) -> Response {
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie("", Duration::ZERO, &headers))]).into_response()
}

fn cookie(token: &str, lifetime: Duration, headers: &HeaderMap) -> String {
    // A proxy that speaks HTTPS with the browser says so.
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if is_https { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", lifetime.as_secs())
}

fn seconds_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |duration| duration.as_secs())
}

fn date(seconds: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
}
