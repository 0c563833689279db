//! Credentials of this server: keys of the settings and of the database, and what they may do.

use super::limits::{OwnerState, RequestLimiter};
use crate::store::{ApiKey, NamePattern, Scopes};
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use uuid::Uuid;

/// sha256 of a key.
pub type KeyDigest = [u8; 32];

/// Hexadecimal digits of a digest that name a key of the settings.
const DIGEST_NAME_DIGITS: usize = 12;

/// A valid credential.
#[derive(Debug)]
pub struct Credential {
    /// `key:` and the id of an API key, `setting:` and the start of a digest, `jwt:` and a subject, or `none`.
    pub name: String,
    pub key_id: Option<Uuid>,
    pub scopes: Scopes,
    /// Patterns of the names of adapters; `None` allows all.
    pub adapters: Option<Vec<NamePattern>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub limiter: Arc<RequestLimiter>,
    pub owner: Arc<OwnerState>,
    /// Milliseconds since 1970 of the last use that is not stored yet; 0 without one.
    last_used: AtomicI64,
}

impl Credential {
    /// Caller of a server without keys.
    pub fn anonymous(owner: Arc<OwnerState>) -> Self {
        Self::new("none".to_string(), Scopes::ALL, owner)
    }

    /// Key of the settings.
    pub fn of_settings(digest: &KeyDigest, scopes: Scopes, owner: Arc<OwnerState>) -> Self {
        let name = format!("setting:{}", &hex::encode(digest)[..DIGEST_NAME_DIGITS]);
        Self::new(name, scopes, owner)
    }

    /// Key of the database.
    pub fn of_key(key: ApiKey, limiter: Arc<RequestLimiter>, owner: Arc<OwnerState>) -> Self {
        Self {
            key_id: Some(key.id),
            adapters: key.adapters,
            expires_at: key.expires_at,
            limiter,
            ..Self::new(format!("key:{}", key.id), key.scopes, owner)
        }
    }

    pub fn new(name: String, scopes: Scopes, owner: Arc<OwnerState>) -> Self {
        Self {
            name,
            key_id: None,
            scopes,
            adapters: None,
            expires_at: None,
            limiter: Arc::default(),
            owner,
            last_used: AtomicI64::new(0),
        }
    }

    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    pub fn record_use(&self, now: DateTime<Utc>) {
        if self.key_id.is_some() {
            self.last_used.store(now.timestamp_millis(), Ordering::Relaxed);
        }
    }

    /// Takes the last use that is not stored yet.
    pub fn take_use(&self) -> Option<(Uuid, DateTime<Utc>)> {
        let time = DateTime::from_timestamp_millis(self.last_used.swap(0, Ordering::Relaxed))?;
        self.key_id.filter(|_| time.timestamp_millis() > 0).map(|id| (id, time))
    }

    /// Whether the credential may use adapters of this name.
    pub fn allows_adapter(&self, name: &str) -> bool {
        self.adapters.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(name)))
    }
}

/// Hashes a key of the settings.
///
/// # Errors
/// `Invalid` for a key that is empty or not visible ASCII; no client could send it.
pub fn hash_setting_key(key: &str) -> Result<KeyDigest> {
    match !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(hash_key(key)),
        false => Err(Error::invalid(
            "invalid_key",
            "a key must be one or more visible ASCII characters without spaces: choose another",
        )),
    }
}

pub fn hash_key(key: &str) -> KeyDigest {
    Sha256::digest(key.as_bytes()).into()
}
