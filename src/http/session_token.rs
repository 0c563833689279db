//! Session tokens: the value of the cookie of a browser that signed in.
//!
//! A token is the time at which the session ends, and the HMAC-SHA-256 of that time under the digest of an API key. Nothing is stored:
//! every process with the same keys accepts the token, and a key that is removed ends its sessions.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Name of the cookie.
pub const SESSION_COOKIE: &str = "espalier_session";

/// Makes a token for a session that ends at `expires_at`, in seconds since 1970.
pub fn sign(key_digest: &[u8; 32], expires_at: u64) -> String {
    let code = authentication_code(key_digest, &expires_at.to_string()).finalize().into_bytes();
    format!("{expires_at}.{}", hex::encode(code))
}

/// Returns when the session of a token ends, if one of the keys signed it and it has not ended at `now`.
pub fn verify(key_digests: &[[u8; 32]], token: &str, now: u64) -> Option<u64> {
    let (time, code) = token.split_once('.')?;
    let code = hex::decode(code).ok()?;
    let is_signed = |digest| authentication_code(digest, time).verify_slice(&code).is_ok();
    let expires_at = key_digests.iter().any(is_signed).then(|| time.parse().ok())??;
    (expires_at > now).then_some(expires_at)
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
    fn token_is_valid_until_it_ends_and_while_its_key_exists() {
        let token = sign(&KEYS[1], 1000);
        assert_eq!(verify(&KEYS, &token, 999), Some(1000));
        assert_eq!(verify(&KEYS, &token, 1000), None);
        assert_eq!(verify(&KEYS[..1], &token, 999), None);
        assert_eq!(verify(&[], &token, 999), None);
    }

    #[test]
    fn changed_token_is_refused() {
        let token = sign(&KEYS[0], 1000);
        let code = token.split_once('.').unwrap().1;
        for wrong in [
            "",
            ".",
            "1000",
            "1000.",
            "1000.zz",
            &format!("2000.{code}"),
            &format!("01000.{code}"),
            &token[..token.len() - 2],
        ] {
            assert_eq!(verify(&KEYS, wrong, 1), None, "{wrong}");
        }
    }
}
