//! Request and response types of keys.

use crate::http::auth::Caller;
use crate::http::pagination::List;
use crate::store::{ApiKey, OwnerLimits, RequestLimits, Scope};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Page of keys.
pub type KeyList = List<ApiKeyView>;

/// Key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"owner": "acme", "name": "support application", "scopes": ["predict", "generate"],
    "adapters": ["support-*"], "limits": {"requests_per_minute": 600}, "expires_at": null}))]
pub struct NewKeyRequest {
    /// Owner (tenant) that the key acts for. It exists from its first key on.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\s/*]+$")]
    pub owner: String,
    /// What the key is for, in 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What the key may do.
    #[schema(min_items = 1)]
    pub scopes: Vec<Scope>,
    /// Names of the adapters that the key may use, where `*` stands for any characters; `null` allows all of the owner's. The base
    /// model is always allowed. An adapter that another owner shares is named `owner/name`.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 100)]
    pub adapters: Option<Vec<String>>,
    /// Limits of the key, beside those of its owner.
    #[serde(default)]
    pub limits: RequestLimits,
    /// Time from which the key is refused; `null` for none.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// How a key is rotated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"grace_seconds": 86400, "expires_at": null}))]
pub struct RotateRequest {
    /// Seconds for which the old key stays valid.
    pub grace_seconds: u32,
    /// Time from which the new key is refused; `null` for that of the old key.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey, example = json!({"id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "owner": "acme", "name": "support application",
    "prefix": "esp_Yk3v9Q", "status": "active", "scopes": ["predict", "generate"], "adapters": ["support-*"],
    "limits": {"requests_per_minute": 600}, "created_by": "setting:9f86d081884c", "created_at": "2026-01-05T09:34:11Z",
    "expires_at": null, "revoked_at": null, "last_used_at": "2026-01-05T10:12:00Z"}))]
pub struct ApiKeyView {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    /// First characters of the key.
    pub prefix: String,
    pub status: KeyStatus,
    pub scopes: Vec<Scope>,
    /// Patterns of the names of adapters; `null` for all.
    pub adapters: Option<Vec<String>>,
    pub limits: RequestLimits,
    /// Credential that created it.
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// Time of the last request with it, with a delay of seconds; `null` if it was never used.
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    Active,
    Expired,
    Revoked,
}

impl ApiKeyView {
    pub fn new(key: ApiKey, now: DateTime<Utc>) -> Self {
        let status = match (key.revoked_at, key.expires_at) {
            (Some(_), _) => KeyStatus::Revoked,
            (None, Some(expires_at)) if expires_at <= now => KeyStatus::Expired,
            (None, _) => KeyStatus::Active,
        };
        Self {
            id: key.id,
            owner: key.owner,
            name: key.name,
            prefix: key.prefix,
            status,
            scopes: key.scopes.iter().collect(),
            adapters: key.adapters.map(|patterns| patterns.into_iter().map(|pattern| pattern.0).collect()),
            limits: key.limits,
            created_by: key.created_by,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
        }
    }
}

/// New key with its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"key": "esp_Yk3v9QpN0c7JmG5rXw2bT8sLzA1dHf3eKi9yVtRqMnB", "id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f",
    "owner": "acme", "name": "support application", "prefix": "esp_Yk3v9Q", "status": "active", "scopes": ["predict", "generate"],
    "adapters": ["support-*"], "limits": {}, "created_by": "setting:9f86d081884c", "created_at": "2026-01-05T09:34:11Z",
    "expires_at": null, "revoked_at": null, "last_used_at": null}))]
pub struct NewKey {
    /// The key. It is not shown again.
    pub key: String,
    #[serde(flatten)]
    pub details: ApiKeyView,
}

/// Credential of a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"owner": "acme", "credential": "key:01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "scopes": ["predict"],
    "adapters": null, "limits": {}, "owner_limits": {"queued_jobs": 20}, "expires_at": null}))]
pub struct CurrentKey {
    pub owner: String,
    /// `key:` and an id, `setting:` and the start of a digest, `jwt:` and a subject, or `none` on a server without keys.
    pub credential: String,
    pub scopes: Vec<Scope>,
    /// Patterns of the names of adapters; `null` for all.
    pub adapters: Option<Vec<String>>,
    pub limits: RequestLimits,
    pub owner_limits: OwnerLimits,
    pub expires_at: Option<DateTime<Utc>>,
}

impl CurrentKey {
    pub fn new(caller: &Caller) -> Self {
        let credential = &caller.credential;
        let patterns = credential.adapters.as_ref();
        Self {
            owner: caller.owner.clone(),
            credential: credential.name.clone(),
            scopes: credential.scopes.iter().collect(),
            adapters: patterns.map(|patterns| patterns.iter().map(|pattern| pattern.0.clone()).collect()),
            limits: credential.limiter.limits,
            owner_limits: *caller.limits(),
            expires_at: credential.expires_at,
        }
    }
}
