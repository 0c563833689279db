//! Signatures of webhooks, as in the specification of Standard Webhooks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use espalier_core::error::{Context, Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: usize = 32;

/// Returns a new random secret: `whsec_` and 32 bytes in base64.
///
/// # Errors
/// `Internal` if the operating system gives no random bytes.
pub fn new_secret() -> Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).context("drawing the secret of a webhook")?;
    Ok(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes)))
}

/// Returns the header `webhook-signature` of a message: version 1, HMAC-SHA256 of the id, the time in seconds since 1970 and the body.
///
/// # Errors
/// `Internal` if the secret is not one of [`new_secret`].
pub fn sign(secret: &str, id: &str, timestamp: i64, body: &str) -> Result<String> {
    let key = secret.strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
    let key = key.ok_or_else(|| Error::internal("the secret of a webhook is malformed"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).context("signing a webhook")?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example of the specification's own libraries.
    #[test]
    fn signature_is_that_of_the_specification() {
        let body = "{\"test\": 2432232314}";
        let signature =
            sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_differ_and_sign() {
        let (one, other) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 6 + 44);
        assert_ne!(sign(&one, "a", 1, "b").unwrap(), sign(&other, "a", 1, "b").unwrap());
        assert!(sign("secret", "a", 1, "b").is_err());
    }
}
