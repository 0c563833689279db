//! Session tokens: the value of the cookie of a browser that signed in.
//!
//! A token is the time at which the session ends, the first digits of the digest of an API key, and the HMAC-SHA-256 of the time under
//! that digest. Nothing is stored: every process with the same keys accepts the token, and a key that is removed ends its sessions.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Name of the cookie.
pub const SESSION_COOKIE: &str = "espalier_session";

/// Hexadecimal digits of the digest in a token, by which the key is found.
const DIGEST_DIGITS: usize = 12;

/// Token of a session whose signature is not verified yet.
#[derive(Debug)]
pub struct SessionToken {
    /// Seconds since 1970.
    pub expires_at: u64,
    /// The time as the token has it.
    time: String,
    digest_start: String,
    code: Vec<u8>,
}

/// Makes a token for a session that ends at `expires_at`, in seconds since 1970.
pub fn sign(key_digest: &[u8; 32], expires_at: u64) -> String {
    let code = authentication_code(key_digest, &expires_at.to_string()).finalize().into_bytes();
    format!("{expires_at}.{}.{}", &hex::encode(key_digest)[..DIGEST_DIGITS], hex::encode(code))
}

/// Reads a token; `None` if it is malformed.
pub fn parse(token: &str) -> Option<SessionToken> {
    let (time, rest) = token.split_once('.')?;
    let (digest_start, code) = rest.split_once('.')?;
    Some(SessionToken {
        expires_at: time.parse().ok()?,
        time: time.to_string(),
        digest_start: digest_start.to_string(),
        code: hex::decode(code).ok()?,
    })
}

impl SessionToken {
    /// Verifies the signature in constant time.
    pub fn is_signed_by(&self, key_digest: &[u8; 32]) -> bool {
        // Most digests differ in their start, which is no secret.
        hex::encode(&key_digest[..DIGEST_DIGITS / 2]) == self.digest_start
            && authentication_code(key_digest, &self.time).verify_slice(&self.code).is_ok()
    }
}

fn authentication_code(key_digest: &[u8; 32], time: &str) -> Hmac<Sha256> {
    let mut code = Hmac::<Sha256>::new_from_slice(key_digest).expect("HMAC takes keys of any length");
    code.update(b"espalier session until ");
    code.update(time.as_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

    #[test]
    fn token_is_signed_by_its_key() {
        let token = parse(&sign(&KEYS[1], 1000)).unwrap();
        assert_eq!((token.expires_at, token.is_signed_by(&KEYS[0]), token.is_signed_by(&KEYS[1])), (1000, false, true));
    }

    #[test]
    fn changed_token_is_refused() {
        let token = sign(&KEYS[0], 1000);
        let code = token.split_once('.').unwrap().1;
        let other_key = sign(&KEYS[1], 1000);
        for wrong in [
            "",
            ".",
            "1000",
            "1000.",
            "1000.zz",
            &format!("2000.{code}"),
            &format!("01000.{code}"),
            &token[..token.len() - 2],
            &other_key,
        ] {
            assert!(parse(wrong).is_none_or(|token| !token.is_signed_by(&KEYS[0])), "{wrong}");
        }
    }
}
