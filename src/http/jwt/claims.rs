//! Times of a token, and the mapping of its claims to an owner and scopes.

use super::error::JwtError;
use crate::store::is_owner_name;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Maximum length of the subject and the owner in characters.
const MAX_NAME_CHARS: usize = 255;

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtClaims {
    /// `sub`, which identifies the user or the client at the issuer.
    pub subject: String,
    pub owner: String,
    /// Scopes in the order of the token, without duplicates.
    pub scopes: Vec<String>,
    /// `exp` in seconds since 1970, without the leeway.
    pub expires_at: u64,
}

/// Claims of the owner and the scopes. A path such as `realm_access.roles` names a field of an object.
#[derive(Debug, Clone)]
pub struct ClaimMapping {
    pub owner: String,
    pub scope: String,
    pub scopes: ScopeMapping,
}

/// Turns values of the scope claim into scopes.
#[derive(Debug, Clone, Default)]
pub struct ScopeMapping {
    /// Only values with this prefix are scopes; the prefix is removed.
    pub prefix: Option<String>,
    /// Scopes of a value, such as the name of a group; checked before the prefix.
    pub by_value: HashMap<String, Vec<String>>,
}

impl ClaimMapping {
    /// # Errors
    /// `InvalidClaim` if the subject or the owner is not a usable name, or the scopes are neither text nor a list of texts.
    pub(super) fn read(&self, claims: &Map<String, Value>, expires_at: u64) -> Result<JwtClaims, JwtError> {
        Ok(JwtClaims {
            subject: read_name(claims, "sub")?,
            owner: read_owner(claims, &self.owner)?,
            scopes: self.scopes.map(read_scope_values(claims, &self.scope)?),
            expires_at,
        })
    }
}

impl ScopeMapping {
    fn map(&self, values: Vec<&str>) -> Vec<String> {
        let mut scopes: Vec<String> = Vec::new();
        for value in values {
            let mapped = match (self.by_value.get(value), &self.prefix) {
                (Some(mapped), _) => mapped.clone(),
                (None, Some(prefix)) => value.strip_prefix(prefix.as_str()).map(str::to_string).into_iter().collect(),
                (None, None) => vec![value.to_string()],
            };
            for scope in mapped {
                if !scopes.contains(&scope) {
                    scopes.push(scope);
                }
            }
        }
        scopes
    }
}

/// Finds a claim by its whole name (`https://example.com/roles`) or, if there is none, by its path (`realm_access.roles`).
fn find_claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut fields = path.split('.');
    let first = claims.get(fields.next()?)?;
    fields.try_fold(first, |value, field| value.get(field))
}

fn read_name(claims: &Map<String, Value>, path: &str) -> Result<String, JwtError> {
    let name = match find_claim(claims, path) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(number)) if number.is_u64() => number.to_string(),
        _ => return Err(JwtError::InvalidClaim(path.to_string())),
    };
    let is_usable =
        !name.trim().is_empty() && name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
    is_usable.then_some(name).ok_or_else(|| JwtError::InvalidClaim(path.to_string()))
}

fn read_owner(claims: &Map<String, Value>, path: &str) -> Result<String, JwtError> {
    let owner = read_name(claims, path)?;
    if is_owner_name(&owner) { Ok(owner) } else { Err(JwtError::InvalidClaim(path.to_string())) }
}

/// Reads texts separated by spaces (RFC 8693) or a list of texts. A token without the claim has no scopes.
fn read_scope_values<'a>(claims: &'a Map<String, Value>, path: &str) -> Result<Vec<&'a str>, JwtError> {
    let invalid = || JwtError::InvalidClaim(path.to_string());
    match find_claim(claims, path) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(text.split_ascii_whitespace().collect()),
        Some(Value::Array(values)) => values.iter().map(|value| value.as_str().ok_or_else(invalid)).collect(),
        Some(_) => Err(invalid()),
    }
}

/// Times between which a token is valid, in seconds since 1970.
pub(super) struct TimeWindow {
    pub expires_at: u64,
    not_before: u64,
}

impl TimeWindow {
    /// # Errors
    /// `InvalidClaim` if `exp` is missing or a time is not a positive number.
    pub fn of(claims: &Map<String, Value>) -> Result<Self, JwtError> {
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => read_seconds(value).map(Some).ok_or_else(|| JwtError::InvalidClaim(name.to_string())),
        };
        let expires_at = time("exp")?.ok_or_else(|| JwtError::InvalidClaim("exp".to_string()))?;
        Ok(Self { expires_at, not_before: time("nbf")?.unwrap_or(0) })
    }

    /// # Errors
    /// `Expired` or `NotYetValid`, with a tolerance of `leeway` seconds.
    pub fn check(&self, now: u64, leeway: u64) -> Result<(), JwtError> {
        if now >= self.expires_at.saturating_add(leeway) {
            return Err(JwtError::Expired);
        }
        match self.not_before > now.saturating_add(leeway) {
            true => Err(JwtError::NotYetValid),
            false => Ok(()),
        }
    }
}

/// Reads a NumericDate (RFC 7519), which may have a fraction.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is positive, and the cast saturates"
)]
fn read_seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))
}
