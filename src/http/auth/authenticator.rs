//! Finds the credential of a request: keys of the settings, keys of the database, and sessions of browsers.
//!
//! The keys of the database are held in memory and read again when their version changes (`sync`), so that a request is authenticated
//! without the database.

use super::credential::{Credential, KeyDigest, hash_key, hash_setting_key};
use super::limits::{OwnerState, RequestLimiter};
use super::sent_credential::{sent_key, session_cookie};
use super::session_token;
use crate::http::jwt::JwtError;
use crate::store::{AccessSnapshot, DEFAULT_OWNER, OwnerLimits, Scope, Scopes};
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Credentials that this server accepts.
pub struct Authenticator {
    setting_keys: Vec<(KeyDigest, Scopes)>,
    tokens: TokenSupport,
    /// Limits of owners that have none of their own.
    default_limits: OwnerLimits,
    credentials: RwLock<Arc<Credentials>>,
    /// Owners without a key or limits of their own, such as those of tokens.
    other_owners: Mutex<HashMap<String, Arc<OwnerState>>>,
}

/// Whether the server also accepts tokens of an OpenID Connect provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSupport {
    None,
    OpenIdConnect,
}

/// Credentials at one version of the database.
struct Credentials {
    version: i64,
    has_keys: bool,
    by_digest: HashMap<KeyDigest, Arc<Credential>>,
    owners: HashMap<String, Arc<OwnerState>>,
    anonymous: Arc<Credential>,
}

/// Authentication of a request.
#[derive(Debug)]
pub enum Authentication {
    /// The server has no keys.
    Anonymous(Arc<Credential>),
    /// The request has a key.
    Key(Arc<Credential>),
    /// The request has a session, which ends at a time (seconds since 1970).
    Session(Arc<Credential>, u64),
    /// The key is unknown, revoked or expired.
    WrongKey,
    /// A token of an OpenID Connect provider is refused.
    WrongToken(JwtError),
    EndedSession,
    Missing,
}

impl Authentication {
    pub fn credential(&self) -> Option<&Arc<Credential>> {
        match self {
            Self::Anonymous(credential) | Self::Key(credential) | Self::Session(credential, _) => Some(credential),
            Self::WrongKey | Self::WrongToken(_) | Self::EndedSession | Self::Missing => None,
        }
    }
}

impl Authenticator {
    /// Keys of the settings have all scopes but `admin`; administrators' keys have that, too.
    ///
    /// # Errors
    /// `Invalid` for a key that is empty or not visible ASCII.
    pub fn new<K: AsRef<str>>(
        keys: &[K],
        admin_keys: &[K],
        tokens: TokenSupport,
        default_limits: OwnerLimits,
    ) -> Result<Self> {
        let with_scopes = |keys: &[K], scopes: Scopes| {
            keys.iter().map(|key| Ok((hash_setting_key(key.as_ref())?, scopes))).collect::<Result<Vec<_>>>()
        };
        let mut setting_keys = with_scopes(keys, Scopes::ALL.without(Scope::Admin))?;
        setting_keys.extend(with_scopes(admin_keys, Scopes::ALL)?);
        let credentials = Credentials::new(AccessSnapshot::default(), &setting_keys, &default_limits, None);
        Ok(Self {
            setting_keys,
            tokens,
            default_limits,
            credentials: RwLock::new(Arc::new(credentials)),
            other_owners: Mutex::default(),
        })
    }

    /// Whether requests need no credential: the settings have none, and the database never had a key.
    pub fn allows_all(&self) -> bool {
        self.has_no_credentials(&self.current())
    }

    fn has_no_credentials(&self, current: &Credentials) -> bool {
        self.setting_keys.is_empty() && self.tokens == TokenSupport::None && !current.has_keys
    }

    /// Version of the keys and owners that are in use.
    pub fn version(&self) -> i64 {
        self.current().version
    }

    /// Uses these keys and owners from here on. What limits have counted stays.
    pub fn replace(&self, snapshot: AccessSnapshot) {
        let mut current = self.credentials.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot.version >= current.version {
            let next = Credentials::new(snapshot, &self.setting_keys, &self.default_limits, Some(&current));
            *current = Arc::new(next);
        }
    }

    pub fn authenticate(&self, headers: &HeaderMap, now: DateTime<Utc>) -> Authentication {
        let current = self.current();
        if self.has_no_credentials(&current) {
            return Authentication::Anonymous(Arc::clone(&current.anonymous));
        }
        match (sent_key(headers), session_cookie(headers)) {
            (Some(key), _) => match current.find(&hash_key(key), now) {
                Some(credential) => Authentication::Key(credential),
                None => Authentication::WrongKey,
            },
            (None, Some(token)) => match current.find_session(token, now) {
                Some((credential, expires_at)) => Authentication::Session(credential, expires_at),
                None => Authentication::EndedSession,
            },
            (None, None) => Authentication::Missing,
        }
    }

    /// Returns the token of a session until `expires_at` (seconds since 1970), or `None` if the key is wrong.
    pub fn sign_session(&self, key: &str, expires_at: u64, now: DateTime<Utc>) -> Option<String> {
        let digest = hash_key(key);
        self.current().find(&digest, now)?;
        Some(session_token::sign(&digest, expires_at))
    }

    /// The limits of an owner and what it has used of them.
    pub fn owner(&self, name: &str) -> Arc<OwnerState> {
        if let Some(owner) = self.current().owners.get(name) {
            return Arc::clone(owner);
        }
        let mut others = self.other_owners.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(OwnerState::new(name.to_string(), self.default_limits));
        Arc::clone(others.entry(name.to_string()).or_insert_with(new))
    }

    /// Takes the last uses of keys that are not stored yet.
    pub fn take_uses(&self) -> Vec<(uuid::Uuid, DateTime<Utc>)> {
        self.current().by_digest.values().filter_map(|credential| credential.take_use()).collect()
    }

    fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authenticator({} keys)", self.current().by_digest.len())
    }
}

impl Credentials {
    fn new(
        snapshot: AccessSnapshot,
        setting_keys: &[(KeyDigest, Scopes)],
        default_limits: &OwnerLimits,
        before: Option<&Self>,
    ) -> Self {
        let mut owners: HashMap<String, Arc<OwnerState>> = HashMap::new();
        let mut add_owner = |name: &str, limits: OwnerLimits| {
            let limits = limits.or(default_limits);
            let kept = before.and_then(|before| before.owners.get(name)).filter(|owner| owner.limits == limits);
            let owner = kept.cloned().unwrap_or_else(|| Arc::new(OwnerState::new(name.to_string(), limits)));
            Arc::clone(owners.entry(name.to_string()).or_insert(owner))
        };
        for owner in &snapshot.owners {
            add_owner(&owner.name, owner.limits);
        }
        let default_owner = add_owner(DEFAULT_OWNER, OwnerLimits::default());
        let mut by_digest = HashMap::new();
        for (digest, key) in snapshot.keys {
            let Some(digest) = hex::decode(&digest).ok().and_then(|bytes| KeyDigest::try_from(bytes).ok()) else {
                tracing::error!(key = %key.id, "the digest of a key is damaged; the key is not accepted");
                continue;
            };
            let owner = add_owner(&key.owner, OwnerLimits::default());
            let old = before.and_then(|before| before.by_digest.get(&digest));
            let limiter = old.map(|old| Arc::clone(&old.limiter)).filter(|limiter| limiter.limits == key.limits);
            let limiter = limiter.unwrap_or_else(|| Arc::new(RequestLimiter::new(key.limits)));
            let credential = Credential::of_key(key, limiter, owner);
            if let Some((_, last_use)) = old.and_then(|old| old.take_use()) {
                credential.record_use(last_use);
            }
            by_digest.insert(digest, Arc::new(credential));
        }
        for (digest, scopes) in setting_keys {
            let credential = Credential::of_settings(digest, *scopes, Arc::clone(&default_owner));
            by_digest.insert(*digest, Arc::new(credential));
        }
        let anonymous = Arc::new(Credential::anonymous(default_owner));
        Self { version: snapshot.version, has_keys: snapshot.has_keys, by_digest, owners, anonymous }
    }

    fn find(&self, digest: &KeyDigest, now: DateTime<Utc>) -> Option<Arc<Credential>> {
        self.by_digest.get(digest).filter(|credential| !credential.is_expired(now)).cloned()
    }

    fn find_session(&self, token: &str, now: DateTime<Utc>) -> Option<(Arc<Credential>, u64)> {
        let session = session_token::parse(token)?;
        let digest = self.by_digest.keys().find(|digest| session.is_signed_by(digest))?;
        let now_seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let credential = self.find(digest, now).filter(|_| session.expires_at > now_seconds)?;
        Some((credential, session.expires_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::session_token::SESSION_COOKIE;
    use crate::store::{ApiKey, NamePattern, RequestLimits};
    use axum::http::header::{AUTHORIZATION, COOKIE};
    use chrono::TimeDelta;
    use uuid::Uuid;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn with_key(key: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {key}").parse().unwrap())])
    }

    fn with_cookie(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, format!("theme=dark; {SESSION_COOKIE}={token}").parse().unwrap())])
    }

    fn stored_key(key: &str, expires_at: Option<DateTime<Utc>>) -> (String, ApiKey) {
        let key_row = ApiKey {
            id: Uuid::from_u128(key.len() as u128),
            owner: "acme".to_string(),
            name: key.to_string(),
            prefix: String::new(),
            scopes: [Scope::Predict].into_iter().collect(),
            adapters: Some(vec![NamePattern("support-*".to_string())]),
            limits: RequestLimits { requests_per_minute: Some(3), ..RequestLimits::default() },
            created_by: String::new(),
            created_at: now(),
            expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        (hex::encode(hash_key(key)), key_row)
    }

    fn snapshot(version: i64, keys: Vec<(String, ApiKey)>) -> AccessSnapshot {
        AccessSnapshot { version, has_keys: true, keys, owners: Vec::new() }
    }

    fn authenticator() -> Authenticator {
        Authenticator::new(&["first", "second"], &["root"], TokenSupport::None, OwnerLimits::default()).unwrap()
    }

    #[test]
    fn every_caller_is_allowed_until_there_was_a_key() {
        let open = Authenticator::new::<&str>(&[], &[], TokenSupport::None, OwnerLimits::default()).unwrap();
        assert!(matches!(open.authenticate(&HeaderMap::new(), now()), Authentication::Anonymous(_)));
        let with_tokens =
            Authenticator::new::<&str>(&[], &[], TokenSupport::OpenIdConnect, OwnerLimits::default()).unwrap();
        assert!(matches!(with_tokens.authenticate(&HeaderMap::new(), now()), Authentication::Missing));
        open.replace(snapshot(1, Vec::new()));
        assert!(matches!(open.authenticate(&HeaderMap::new(), now()), Authentication::Missing));
        assert!(!open.allows_all());
    }

    #[test]
    fn keys_of_the_settings_have_all_scopes_but_admin() {
        let keys = authenticator();
        let scopes = |key: &str| keys.authenticate(&with_key(key), now()).credential().map(|found| found.scopes);
        assert_eq!(scopes("second"), Some(Scopes::ALL.without(Scope::Admin)));
        assert_eq!(scopes("root"), Some(Scopes::ALL));
        assert_eq!(scopes("third"), None);
    }

    #[test]
    fn keys_of_the_database_end_with_their_time_and_their_row() {
        let keys = authenticator();
        let end = now() + TimeDelta::seconds(60);
        keys.replace(snapshot(1, vec![stored_key("a", None), stored_key("bb", Some(end))]));
        let owner = |key: &str, time| {
            keys.authenticate(&with_key(key), time).credential().map(|found| found.owner.name.clone())
        };
        assert_eq!(owner("a", now()).as_deref(), Some("acme"));
        assert_eq!((owner("bb", now()).is_some(), owner("bb", end).is_some()), (true, false));
        assert_eq!(owner("first", now()).as_deref(), Some(DEFAULT_OWNER));
        keys.replace(snapshot(2, vec![stored_key("bb", None)]));
        assert_eq!((owner("a", now()).is_some(), owner("bb", end).is_some()), (false, true));
        keys.replace(snapshot(1, vec![stored_key("a", None)]));
        assert_eq!(owner("a", now()), None, "an older version is ignored");
    }

    #[test]
    fn limits_and_uses_survive_a_change_of_other_keys() {
        let keys = authenticator();
        keys.replace(snapshot(1, vec![stored_key("a", None)]));
        let found = keys.authenticate(&with_key("a"), now()).credential().cloned().unwrap();
        found.record_use(now());
        keys.replace(snapshot(2, vec![stored_key("a", None), stored_key("bb", None)]));
        let again = keys.authenticate(&with_key("a"), now()).credential().cloned().unwrap();
        assert!(Arc::ptr_eq(&found.limiter, &again.limiter) && Arc::ptr_eq(&found.owner, &again.owner));
        assert_eq!(keys.take_uses(), [(Uuid::from_u128(1), now())]);
        assert_eq!(keys.take_uses(), []);
    }

    #[test]
    fn session_ends_with_its_time_and_its_key_and_yields_to_a_key() {
        let keys = authenticator();
        keys.replace(snapshot(1, vec![stored_key("a", None)]));
        assert!(keys.sign_session("other", u64::MAX, now()).is_none());
        let token = keys.sign_session("a", u64::MAX, now()).unwrap();
        assert!(matches!(keys.authenticate(&with_cookie(&token), now()), Authentication::Session(..)));
        let ended = keys.sign_session("a", 1, now()).unwrap();
        for token in [&ended, ""] {
            assert!(matches!(keys.authenticate(&with_cookie(token), now()), Authentication::EndedSession));
        }
        let mut both = with_cookie(&token);
        both.extend(with_key("wrong"));
        assert!(matches!(keys.authenticate(&both, now()), Authentication::WrongKey));
        keys.replace(snapshot(2, Vec::new()));
        assert!(matches!(keys.authenticate(&with_cookie(&token), now()), Authentication::EndedSession));
    }

    #[test]
    fn keys_are_not_shown_in_debug_output() {
        assert_eq!(format!("{:?}", authenticator()), "Authenticator(3 keys)");
        for key in ["", "two words", "clé"] {
            assert_eq!(
                Authenticator::new(&[key], &[], TokenSupport::None, OwnerLimits::default()).unwrap_err().code(),
                "invalid_key"
            );
        }
    }
}
