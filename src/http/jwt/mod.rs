//! Verification of JSON Web Tokens (RFC 7519) that an OpenID Connect provider signs, against its published keys (JWKS, RFC 7517).
//!
//! Only asymmetric signatures are accepted, and only with the algorithm of the key: `none` and HMAC are refused, so that a public key
//! cannot serve as a secret. Verified tokens are cached until they expire, because a signature costs up to 100 µs.

mod claims;
mod error;
mod keys;
mod source;
mod token_cache;

pub use claims::{ClaimMapping, JwtClaims, ScopeMapping};
pub use error::JwtError;
pub use source::JwksSource;

use claims::TimeWindow;
use espalier_core::error::Result;
use jsonwebtoken::{Validation, decode};
use keys::{KeySet, TokenHeader};
use sha2::{Digest, Sha256};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use token_cache::TokenCache;
use tokio::sync::Mutex;

/// Maximum length of a token in bytes; longer tokens do not fit into the headers of usual proxies.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Delay after the first failed load; it doubles with every further failure up to the refresh interval.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Which tokens are accepted, and what their claims mean.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    pub jwks: JwksSource,
    /// Accepted values of `iss`.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`; one of the token's audiences must be among them.
    pub audiences: Vec<String>,
    pub claims: ClaimMapping,
    /// Tolerated difference of the clocks for `exp` and `nbf`.
    pub leeway: Duration,
    /// Interval at which the keys are loaded again.
    pub refresh_interval: Duration,
    /// Minimum time between two loads that tokens with an unknown key cause.
    pub min_refresh_interval: Duration,
}

/// Verifies tokens with the current keys.
pub struct JwtVerifier {
    settings: JwtSettings,
    validation: Validation,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// Time of the last load; locked while the keys are loaded, so that they are loaded once for all waiting requests.
    last_load: Mutex<Option<Instant>>,
    cache: TokenCache,
}

impl JwtVerifier {
    /// Loads the keys and starts the task that refreshes them until the verifier is dropped.
    ///
    /// A file is read at once. A URL is requested in the background and again until it answers; until then tokens are refused with
    /// [`JwtError::KeysUnavailable`].
    ///
    /// # Errors
    /// `Invalid` if the file cannot be read or holds no usable key.
    pub fn start(settings: JwtSettings) -> Result<Arc<Self>> {
        let keys = match &settings.jwks {
            JwksSource::File(_) => Some(Arc::new(settings.jwks.load()?)),
            JwksSource::Url(_) => None,
        };
        let last_load = keys.as_ref().map(|_| Instant::now());
        let verifier = Arc::new(Self {
            validation: signature_validation(&settings),
            settings,
            keys: RwLock::new(keys),
            last_load: Mutex::new(last_load),
            cache: TokenCache::default(),
        });
        tokio::spawn(refresh_keys(Arc::downgrade(&verifier)));
        Ok(verifier)
    }

    /// Returns whether a bearer token has the form of a JWT: three parts in base64url, of which the first is a JSON object.
    pub fn is_jwt(token: &str) -> bool {
        let is_base64url = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let parts: Vec<&str> = token.split('.').take(4).collect();
        // `{"` in base64url begins with `ey`.
        parts.len() == 3 && parts[0].starts_with("ey") && parts[..2].iter().copied().all(is_base64url)
    }

    /// Verifies the signature and the claims of a token. `now` is the time in seconds since 1970.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify(&self, token: &str, now: u64) -> std::result::Result<Arc<JwtClaims>, JwtError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::TooLong);
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.current_keys().and_then(|keys| self.cache.get(&digest, keys.digest(), now)) {
            return Ok(claims);
        }
        let header = TokenHeader::parse(token)?;
        let keys = self.keys_with(&header).await?;
        let key = keys.find(&header)?;
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.algorithm];
        let decoded = decode::<serde_json::Map<_, _>>(token, key, &validation).map_err(JwtError::from)?;
        let window = TimeWindow::of(&decoded.claims)?;
        window.check(now, self.settings.leeway.as_secs())?;
        let claims = Arc::new(self.settings.claims.read(&decoded.claims, window.expires_at)?);
        let valid_until = window.expires_at.saturating_add(self.settings.leeway.as_secs());
        self.cache.insert(digest, keys.digest(), valid_until, Arc::clone(&claims), now);
        Ok(claims)
    }

    fn current_keys(&self) -> Option<Arc<KeySet>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns keys that hold the token's key; loads them again if the current ones do not, unless that was done a moment ago.
    async fn keys_with(&self, header: &TokenHeader) -> std::result::Result<Arc<KeySet>, JwtError> {
        let find = || self.current_keys().filter(|keys| !matches!(keys.find(header), Err(JwtError::UnknownKey)));
        if let Some(keys) = find() {
            return Ok(keys);
        }
        let mut last_load = self.last_load.lock().await;
        if find().is_none() && last_load.is_none_or(|time| time.elapsed() >= self.settings.min_refresh_interval) {
            self.load(&mut last_load).await;
        }
        self.current_keys().ok_or(JwtError::KeysUnavailable)
    }

    /// Loads the keys. A failure is logged and leaves the current keys in place. Returns whether keys were loaded.
    async fn load(&self, last_load: &mut Option<Instant>) -> bool {
        let source = self.settings.jwks.clone();
        let loaded = super::spawn::run_blocking("loading the keys of tokens", move || source.load()).await;
        *last_load = Some(Instant::now());
        match loaded {
            Ok(keys) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
                true
            }
            Err(error) => {
                tracing::warn!(jwks = %self.settings.jwks, error = %error, "loading the keys of tokens failed");
                false
            }
        }
    }
}

/// Checks of the signature, the issuer and the audience; [`TimeWindow`] checks the times.
fn signature_validation(settings: &JwtSettings) -> Validation {
    let mut validation = Validation::default();
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&settings.issuers);
    validation.set_audience(&settings.audiences);
    validation.validate_exp = false;
    validation
}

/// Loads the keys at the refresh interval, and after a failure again with a growing delay.
async fn refresh_keys(verifier: Weak<JwtVerifier>) {
    let mut retry_delay = FIRST_RETRY_DELAY;
    let mut delay = match verifier.upgrade() {
        Some(verifier) if verifier.current_keys().is_some() => verifier.settings.refresh_interval,
        _ => Duration::ZERO,
    };
    loop {
        tokio::time::sleep(delay).await;
        let Some(verifier) = verifier.upgrade() else { return };
        let mut last_load = verifier.last_load.lock().await;
        let interval = verifier.settings.refresh_interval;
        delay = match verifier.load(&mut last_load).await {
            true => {
                retry_delay = FIRST_RETRY_DELAY;
                interval
            }
            false => {
                let delay = retry_delay.min(interval);
                retry_delay = retry_delay.saturating_mul(2).min(interval);
                delay
            }
        };
    }
}

#[cfg(test)]
mod tests;
