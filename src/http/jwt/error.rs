//! Reasons to refuse a token, and their responses.

use crate::http::error::ApiError;
use axum::http::StatusCode;
use jsonwebtoken::errors::ErrorKind;
use std::fmt;
use std::time::Duration;

/// `Retry-After` while the keys cannot be loaded.
const KEYS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtError {
    TooLong,
    Malformed,
    UnsupportedAlgorithm,
    /// No key fits the token's `kid` and algorithm.
    UnknownKey,
    /// Several keys fit a token without `kid`.
    AmbiguousKey,
    /// The keys have not been loaded yet.
    KeysUnavailable,
    WrongSignature,
    Expired,
    NotYetValid,
    WrongIssuer,
    WrongAudience,
    /// A required claim is missing or has the wrong type.
    InvalidClaim(String),
}

impl JwtError {
    /// Stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::UnsupportedAlgorithm => "token_algorithm_unsupported",
            Self::UnknownKey | Self::AmbiguousKey => "token_key_unknown",
            Self::KeysUnavailable => "token_keys_unavailable",
            Self::WrongSignature => "token_signature_wrong",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer => "token_issuer_wrong",
            Self::WrongAudience => "token_audience_wrong",
            Self::InvalidClaim(_) => "token_claim_invalid",
        }
    }
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::TooLong => "the token is longer than 16 KiB: ask its issuer for one with fewer claims",
            Self::Malformed => "the token is not a signed JWT: send the access token of the issuer as it is",
            Self::UnsupportedAlgorithm => {
                "the algorithm of the token is not accepted: it must be signed with RS256, RS384, RS512, PS256, PS384, PS512, \
                 ES256, ES384 or EdDSA"
            }
            Self::UnknownKey => "the token is signed with a key that the issuer does not publish: get a new token",
            Self::AmbiguousKey => "the token has no kid, and several keys of the issuer fit: the issuer must send kid",
            Self::KeysUnavailable => "the keys of the issuer cannot be loaded at present: try again later",
            Self::WrongSignature => "the signature of the token is wrong: get a new token",
            Self::Expired => "the token has expired: get a new one",
            Self::NotYetValid => "the token is not valid yet: check the clocks of the issuer and of this server",
            Self::WrongIssuer => "the token is of an issuer that this server does not accept (iss)",
            Self::WrongAudience => "the token is meant for another service (aud): request one for this server",
            Self::InvalidClaim(claim) => {
                return write!(f, "the claim {claim} of the token is missing or has the wrong type: ask the operator");
            }
        };
        f.write_str(text)
    }
}

impl From<jsonwebtoken::errors::Error> for JwtError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.into_kind() {
            ErrorKind::InvalidSignature => Self::WrongSignature,
            ErrorKind::InvalidIssuer => Self::WrongIssuer,
            ErrorKind::InvalidAudience => Self::WrongAudience,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => Self::UnsupportedAlgorithm,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => Self::InvalidClaim(claim),
            _ => Self::Malformed,
        }
    }
}

impl From<JwtError> for ApiError {
    fn from(error: JwtError) -> Self {
        match error {
            JwtError::KeysUnavailable => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.to_string())
                .with_retry_after(KEYS_RETRY_AFTER),
            error => Self::unauthorized(
                error.code(),
                &error.to_string(),
                "Bearer realm=\"espalier\", error=\"invalid_token\"",
            ),
        }
    }
}
