//! Verified tokens by their SHA-256, until they expire or the keys change.

use super::claims::JwtClaims;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of cached tokens, about 5 MB. When it is reached, expired tokens are dropped, and if that frees none, all.
const CAPACITY: usize = 10_000;

#[derive(Default)]
pub(super) struct TokenCache {
    tokens: Mutex<HashMap<[u8; 32], CachedToken>>,
}

struct CachedToken {
    claims: Arc<JwtClaims>,
    /// Digest of the key set that verified the token.
    keys: [u8; 32],
    /// Seconds since 1970, the leeway included.
    valid_until: u64,
}

impl TokenCache {
    /// Returns the claims of a token that these keys verified and that has not expired.
    pub fn get(&self, token: &[u8; 32], keys: &[u8; 32], now: u64) -> Option<Arc<JwtClaims>> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = tokens.get(token).filter(|cached| cached.keys == *keys && now < cached.valid_until)?;
        Some(Arc::clone(&cached.claims))
    }

    pub fn insert(&self, token: [u8; 32], keys: &[u8; 32], valid_until: u64, claims: Arc<JwtClaims>, now: u64) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= CAPACITY {
            tokens.retain(|_, cached| cached.keys == *keys && now < cached.valid_until);
        }
        if tokens.len() >= CAPACITY {
            tokens.clear();
        }
        tokens.insert(token, CachedToken { claims, keys: *keys, valid_until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Arc<JwtClaims> {
        Arc::new(JwtClaims { subject: "s".into(), owner: "o".into(), scopes: Vec::new(), expires_at: 10 })
    }

    #[test]
    fn token_is_cached_until_it_expires_or_the_keys_change() {
        let cache = TokenCache::default();
        cache.insert([1; 32], &[7; 32], 10, claims(), 0);
        assert!(cache.get(&[1; 32], &[7; 32], 9).is_some());
        assert!(cache.get(&[1; 32], &[7; 32], 10).is_none());
        assert!(cache.get(&[1; 32], &[8; 32], 9).is_none());
        assert!(cache.get(&[2; 32], &[7; 32], 9).is_none());
    }

    #[test]
    fn number_of_cached_tokens_is_bounded() {
        let cache = TokenCache::default();
        let token = |number: usize| {
            let mut token = [0; 32];
            token[..8].copy_from_slice(&number.to_le_bytes());
            token
        };
        for number in 0..3 * CAPACITY {
            cache.insert(token(number), &[7; 32], 10, claims(), 0);
        }
        assert!(cache.tokens.lock().unwrap().len() <= CAPACITY);
        assert!(cache.get(&token(3 * CAPACITY - 1), &[7; 32], 9).is_some());
    }
}
