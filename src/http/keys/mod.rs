//! `/keys`: API keys of owners. A key is shown once; the database holds its digest.

mod view;

pub use view::{ApiKeyView, CurrentKey, KeyList, NewKey, NewKeyRequest, RotateRequest};

use super::auth::Caller;
use super::auth::access::now;
use super::auth::credential::hash_key;
use super::error::ApiResult;
use super::extract::{Json, PathId, QueryParams};
use super::openapi::{
    BadRequest, Conflict, NotFound, RequestTimeout, ServiceUnavailable, UnprocessableEntity, UnsupportedMediaType,
};
use super::owners::{check_request_limits, parse_owner};
use super::pagination::{List, ListQuery, PageParams};
use super::state::AppState;
use crate::store::{ApiKey, NamePattern, NewApiKey};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use espalier_core::error::{Error, Result};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// First characters of every key, by which scanners of leaked secrets recognize it.
const KEY_START: &str = "esp_";

/// Random bytes of a key.
const KEY_BYTES: usize = 32;

/// Characters of a key that lists show.
const SHOWN_CHARACTERS: usize = 10;

/// Longest name of a key, in characters.
const MAX_NAME_LENGTH: usize = 100;

/// Most patterns of a key.
const MAX_PATTERNS: usize = 100;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_keys, create_key))
        .routes(routes!(get_current_key))
        .routes(routes!(get_key, revoke_key))
        .routes(routes!(rotate_key))
}

/// Create a key
///
/// The answer has the key, which is not shown again. Everything that is created with it belongs to its owner, and it sees what belongs to
/// that owner. The owner exists from then on.
#[utoipa::path(
    post, path = "/keys", operation_id = "create_key", tag = "access", request_body = NewKeyRequest,
    responses((status = 201, description = "The key.", body = NewKey,
        headers(("location" = String, description = "Path of the key: `/keys/{id}`."))),
        BadRequest, RequestTimeout, Conflict, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable),
)]
async fn create_key(state: AppState, caller: Caller, Json(request): Json<NewKeyRequest>) -> ApiResult<Response> {
    if state.access.authenticator.allows_all() {
        let detail = "this server has no keys, so that every caller is accepted, and its first key would lock out its operator: start \
                      it with an administrator's key first (--admin-keys, ESPALIER_ADMIN_KEYS)";
        return Err(Error::conflict("no_admin_key", detail).into());
    }
    let key = generate_key()?;
    let new_key = to_new_key(request, &key, &caller.credential.name)?;
    let added = state.store.add_api_key(new_key).await?;
    state.access_sync.refresh().await?;
    Ok(created(key, added))
}

/// List keys
///
/// Keys of all owners, revoked and expired ones too, newest first.
#[utoipa::path(
    get, path = "/keys", operation_id = "list_keys", tag = "access", params(ListQuery),
    responses((status = 200, description = "Page of keys.", body = List<ApiKeyView>,
        example = json!({"data": [], "next": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f"})), UnprocessableEntity, ServiceUnavailable),
)]
async fn list_keys(state: AppState, QueryParams(query): QueryParams<ListQuery>) -> ApiResult<axum::Json<KeyList>> {
    let page = PageParams::new(query.limit, query.after, &state.settings)?;
    let keys = state.store.api_keys(page.to_store_page()).await?;
    Ok(axum::Json(page.into_list(keys, |key| key.id, |key| ApiKeyView::new(key, now()))))
}

/// Get the current key
///
/// What the credential of the request may do, and for which owner.
#[utoipa::path(
    get, path = "/keys/current", operation_id = "get_current_key", tag = "access",
    responses((status = 200, description = "The credential of the request.", body = CurrentKey)),
)]
async fn get_current_key(caller: Caller) -> axum::Json<CurrentKey> {
    axum::Json(CurrentKey::new(&caller))
}

/// Get a key
#[utoipa::path(
    get, path = "/keys/{id}", operation_id = "get_key", tag = "access",
    params(("id" = Uuid, Path, description = "Id of the key.")),
    responses((status = 200, description = "The key, without its secret.", body = ApiKeyView), NotFound, ServiceUnavailable),
)]
async fn get_key(state: AppState, PathId(id): PathId) -> ApiResult<axum::Json<ApiKeyView>> {
    Ok(axum::Json(ApiKeyView::new(state.store.api_key(id).await?, now())))
}

/// Revoke a key
///
/// It is refused from then on, by other processes within `--access-refresh-interval`. Sessions that it signed in end.
#[utoipa::path(
    delete, path = "/keys/{id}", operation_id = "revoke_key", tag = "access",
    params(("id" = Uuid, Path, description = "Id of the key.")),
    responses((status = 204, description = "The key is revoked."), NotFound, ServiceUnavailable),
)]
async fn revoke_key(state: AppState, PathId(id): PathId) -> ApiResult<StatusCode> {
    state.store.revoke_api_key(id).await?;
    state.access_sync.refresh().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate a key
///
/// Creates a key with the same owner, name, scopes, adapters and limits. The old key is valid for `grace_seconds` more, so that
/// applications can change to the new one.
#[utoipa::path(
    post, path = "/keys/{id}/rotate", operation_id = "rotate_key", tag = "access", request_body = RotateRequest,
    params(("id" = Uuid, Path, description = "Id of the key.")),
    responses((status = 201, description = "The new key.", body = NewKey,
        headers(("location" = String, description = "Path of the new key: `/keys/{id}`."))),
        BadRequest, RequestTimeout, NotFound, Conflict, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable),
)]
async fn rotate_key(
    state: AppState,
    caller: Caller,
    PathId(id): PathId,
    Json(request): Json<RotateRequest>,
) -> ApiResult<Response> {
    let old = state.store.api_key(id).await?;
    let key = generate_key()?;
    let new_key = NewApiKey {
        owner: old.owner,
        name: old.name,
        scopes: old.scopes,
        adapters: old.adapters,
        limits: old.limits,
        expires_at: request.expires_at.or(old.expires_at),
        ..key_with_secret(&key, &caller.credential.name)
    };
    let grace = TimeDelta::seconds(i64::from(request.grace_seconds));
    let old_expires_at = state.store.now().await? + grace;
    let added = state.store.rotate_api_key(id, new_key, old_expires_at).await?;
    state.access_sync.refresh().await?;
    Ok(created(key, added))
}

/// The only response with the key itself, which no cache may keep.
fn created(key: String, added: ApiKey) -> Response {
    let headers = [(LOCATION, format!("/keys/{}", added.id)), (CACHE_CONTROL, "no-store".to_string())];
    let body = axum::Json(NewKey { key, details: ApiKeyView::new(added, now()) });
    (StatusCode::CREATED, headers, body).into_response()
}

fn generate_key() -> Result<String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Error::internal(format!("no random bytes for a key: {error}")))?;
    Ok(format!("{KEY_START}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// A new key without rights.
fn key_with_secret(key: &str, created_by: &str) -> NewApiKey {
    NewApiKey {
        id: Uuid::now_v7(),
        owner: String::new(),
        name: String::new(),
        prefix: key.chars().take(SHOWN_CHARACTERS).collect(),
        digest: hex::encode(hash_key(key)),
        scopes: [].into_iter().collect(),
        adapters: None,
        limits: Default::default(),
        created_by: created_by.to_string(),
        expires_at: None,
    }
}

fn to_new_key(request: NewKeyRequest, key: &str, created_by: &str) -> Result<NewApiKey> {
    let owner = parse_owner(request.owner).map_err(|error| error.about_field("/owner"))?;
    if !(1..=MAX_NAME_LENGTH).contains(&request.name.chars().count()) || request.name.chars().any(char::is_control) {
        let message = format!("must have 1 to {MAX_NAME_LENGTH} characters, none of them a control character");
        return Err(Error::invalid_field("/name", message));
    }
    if request.scopes.is_empty() {
        return Err(Error::invalid_field("/scopes", "is empty: a key without scopes could do nothing"));
    }
    if request.expires_at.is_some_and(|expires_at| expires_at <= now()) {
        return Err(Error::invalid_field("/expires_at", "is in the past"));
    }
    let patterns = request.adapters.as_deref().unwrap_or_default();
    if request.adapters.is_some() && patterns.is_empty() || patterns.len() > MAX_PATTERNS {
        let message = format!("must have 1 to {MAX_PATTERNS} patterns: leave it out to allow all adapters");
        return Err(Error::invalid_field("/adapters", message));
    }
    check_request_limits("/limits", &request.limits)?;
    Ok(NewApiKey {
        owner,
        name: request.name,
        scopes: request.scopes.into_iter().collect(),
        adapters: request.adapters.map(|patterns| patterns.into_iter().map(NamePattern).collect()),
        limits: request.limits,
        expires_at: request.expires_at,
        ..key_with_secret(key, created_by)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_and_long() {
        let (one, other) = (generate_key().unwrap(), generate_key().unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with(KEY_START) && one.len() == KEY_START.len() + 43, "{one}");
        let new_key = key_with_secret(&one, "none");
        assert!(new_key.digest.len() == 64 && new_key.prefix.len() == SHOWN_CHARACTERS);
    }
}
