//! Public keys of a JSON Web Key Set, and the choice of a token's key.

use super::error::JwtError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::CryptoProvider;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::str::FromStr;

/// RFC 7518 requires RSA keys of at least 2048 bits; larger ones than 8192 make verification slow.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const RSA_ALGORITHMS: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
/// Types of tokens that are accepted (`typ`, without `application/`). Others, such as logout tokens, are no proof of identity.
const ACCEPTED_TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Header of a token, before its signature is verified.
pub(super) struct TokenHeader {
    pub algorithm: Algorithm,
    key_id: Option<String>,
}

impl TokenHeader {
    /// # Errors
    /// `Malformed` for text that is not a JWT; `UnsupportedAlgorithm` for `none`, HMAC and unknown algorithms.
    pub fn parse(token: &str) -> Result<Self, JwtError> {
        #[derive(Deserialize)]
        struct Fields {
            alg: String,
            kid: Option<String>,
            typ: Option<String>,
        }
        let (encoded, _) = token.split_once('.').ok_or(JwtError::Malformed)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| JwtError::Malformed)?;
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| JwtError::Malformed)?;
        let typ = fields.typ.unwrap_or_else(|| "jwt".to_string()).to_ascii_lowercase();
        if !ACCEPTED_TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ)) {
            return Err(JwtError::Malformed);
        }
        match Algorithm::from_str(&fields.alg) {
            Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) | Err(_) => Err(JwtError::UnsupportedAlgorithm),
            Ok(algorithm) => Ok(Self { algorithm, key_id: fields.kid }),
        }
    }
}

/// Usable keys of a set.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<VerificationKey>,
    digest: [u8; 32],
}

#[derive(Debug)]
struct VerificationKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Parses `{"keys": […]}`. Keys of other uses, and those that are unknown or weak, are left out with a line in the log.
    ///
    /// # Errors
    /// A sentence if the text is not a key set or holds no usable key.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields {
            keys: Vec<serde_json::Value>,
        }
        let set: Fields = serde_json::from_slice(json)
            .map_err(|error| format!("this is not a JSON Web Key Set ({error}): it has the form {{\"keys\": […]}}"))?;
        let mut keys = Vec::new();
        for (index, value) in set.keys.into_iter().enumerate() {
            match VerificationKey::parse(value) {
                Ok(key) => keys.push(key),
                Err(reason) => tracing::debug!(index, reason, "key of the key set left out"),
            }
        }
        match keys.is_empty() {
            true => {
                Err("the key set holds no key for signatures: RSA of at least 2048 bits, P-256, P-384 and Ed25519 \
                         are read"
                    .to_string())
            }
            false => Ok(Self { keys, digest: Sha256::digest(json).into() }),
        }
    }

    /// SHA-256 of the document.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Returns the key with the token's `kid` that may be used with its algorithm. Without `kid`, the only key that may.
    pub fn find(&self, header: &TokenHeader) -> Result<&DecodingKey, JwtError> {
        let fits = |key: &&VerificationKey| {
            (header.key_id.is_none() || key.id == header.key_id) && key.algorithms.contains(&header.algorithm)
        };
        let mut fitting = self.keys.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (None, _) => Err(JwtError::UnknownKey),
            (Some(_), Some(_)) if header.key_id.is_none() => Err(JwtError::AmbiguousKey),
            (Some(key), _) => Ok(&key.key),
        }
    }
}

impl VerificationKey {
    fn parse(value: serde_json::Value) -> Result<Self, &'static str> {
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| "its fields cannot be read")?;
        if matches!(&jwk.common.public_key_use, Some(purpose) if *purpose != PublicKeyUse::Signature) {
            return Err("it is not for signatures (use)");
        }
        if matches!(&jwk.common.key_operations, Some(operations) if !operations.contains(&KeyOperations::Verify)) {
            return Err("it is not for verification (key_ops)");
        }
        let mut algorithms = possible_algorithms(&jwk.algorithm)?;
        if let Some(algorithm) = jwk.common.key_algorithm {
            let algorithm = Algorithm::try_from(algorithm).map_err(|_| "its algorithm is unknown (alg)")?;
            algorithms.retain(|possible| *possible == algorithm);
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| "its numbers are not base64url")?;
        let provider = CryptoProvider::try_get_default().ok_or("this build verifies no signatures")?;
        let is_valid = |algorithm: &Algorithm| (provider.verifier_factory)(algorithm, &key).is_ok();
        match algorithms.is_empty() || !algorithms.iter().all(is_valid) {
            true => Err("its type, algorithm and numbers do not fit together"),
            false => Ok(Self { id: jwk.common.key_id, algorithms, key }),
        }
    }
}

/// Algorithms that a key of this type and size may be used with.
fn possible_algorithms(parameters: &AlgorithmParameters) -> Result<Vec<Algorithm>, &'static str> {
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).map_err(|_| "its modulus is not base64url")?;
            let bytes = modulus.len() - modulus.iter().take_while(|byte| **byte == 0).count();
            match RSA_MODULUS_BYTES.contains(&bytes) {
                true => Ok(RSA_ALGORITHMS.to_vec()),
                false => Err("its modulus has fewer than 2048 or more than 8192 bits"),
            }
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Ok(vec![Algorithm::ES256]),
            EllipticCurve::P384 => Ok(vec![Algorithm::ES384]),
            _ => Err("its curve is not P-256 or P-384"),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Ok(vec![Algorithm::EdDSA]),
        _ => Err("its type is not RSA, EC or OKP"),
    }
}
