//! API keys, owners and their limits.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Predictions, embeddings, reranking and tokenization.
    #[serde(rename = "predict")]
    Predict,
    /// Text generation.
    #[serde(rename = "generate")]
    Generate,
    /// Datasets, files and training jobs.
    #[serde(rename = "train")]
    Train,
    /// List, get and download adapters.
    #[serde(rename = "adapters:read")]
    AdaptersRead,
    /// Import, activate, share and delete adapters.
    #[serde(rename = "adapters:write")]
    AdaptersWrite,
    /// Scrape `/metrics`.
    #[serde(rename = "metrics")]
    Metrics,
    /// Keys, owners, the audit log, and the usage of all owners.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Self; 7] = [
        Self::Predict,
        Self::Generate,
        Self::Train,
        Self::AdaptersRead,
        Self::AdaptersWrite,
        Self::Metrics,
        Self::Admin,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Generate => "generate",
            Self::Train => "train",
            Self::AdaptersRead => "adapters:read",
            Self::AdaptersWrite => "adapters:write",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// Set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    pub const ALL: Self = Self((1 << Scope::ALL.len()) - 1);

    pub fn contains(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    pub fn contains_any(self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.contains(*scope))
    }

    pub fn without(self, scope: Scope) -> Self {
        Self(self.0 & !Self::bit(scope))
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | Self::bit(scope)))
    }
}

impl Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Scope>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Pattern of names of adapters: `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamePattern(pub String);

impl NamePattern {
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(position) = rest.find(part) else { return false };
            rest = &rest[position + part.len()..];
        }
        true
    }
}

/// Limits on requests. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestLimits {
    /// Requests other than GET in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub requests_per_minute: Option<u32>,
    /// Tokens of inputs and of generated text in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub tokens_per_minute: Option<u32>,
    /// Requests at the same time, event streams included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub concurrent_requests: Option<u32>,
}

/// Limits of an owner. `None` is the default of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OwnerLimits {
    /// Requests other than GET in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub requests_per_minute: Option<u32>,
    /// Tokens of inputs and of generated text in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub tokens_per_minute: Option<u32>,
    /// Requests at the same time, event streams included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub concurrent_requests: Option<u32>,
    /// Queued jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_jobs: Option<u64>,
    /// Jobs that run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub running_jobs: Option<u64>,
    /// Bytes of all datasets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_bytes: Option<u64>,
    /// Rows of all datasets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_rows: Option<u64>,
    /// Bytes of all adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_bytes: Option<u64>,
}

impl OwnerLimits {
    pub fn requests(&self) -> RequestLimits {
        RequestLimits {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            concurrent_requests: self.concurrent_requests,
        }
    }

    /// These limits, and those of `defaults` where they have none.
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(defaults.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(defaults.tokens_per_minute),
            concurrent_requests: self.concurrent_requests.or(defaults.concurrent_requests),
            queued_jobs: self.queued_jobs.or(defaults.queued_jobs),
            running_jobs: self.running_jobs.or(defaults.running_jobs),
            dataset_bytes: self.dataset_bytes.or(defaults.dataset_bytes),
            dataset_rows: self.dataset_rows.or(defaults.dataset_rows),
            adapter_bytes: self.adapter_bytes.or(defaults.adapter_bytes),
        }
    }
}

/// Whether a text can name an owner: 1 to 255 characters without spaces and control characters, `/`, which separates an owner from an
/// adapter, and `*`, which stands for all. Subjects of tokens have any other form.
pub fn is_owner_name(name: &str) -> bool {
    let is_allowed = |c: char| !c.is_control() && !c.is_whitespace() && c != '/' && c != '*';
    (1..=255).contains(&name.chars().count()) && name.chars().all(is_allowed)
}

/// Tenant, with the limits that its row has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    pub limits: OwnerLimits,
    pub created_at: DateTime<Utc>,
}

/// Bytes and rows that an owner stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct OwnerStorage {
    pub datasets: u64,
    pub dataset_bytes: u64,
    pub dataset_rows: u64,
    pub adapters: u64,
    pub adapter_bytes: u64,
}

#[derive(Clone)]
pub struct NewApiKey {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub prefix: String,
    /// sha256 of the key, hexadecimal.
    pub digest: String,
    pub scopes: Scopes,
    /// `None` allows all adapters.
    pub adapters: Option<Vec<NamePattern>>,
    pub limits: RequestLimits,
    pub created_by: String,
    pub expires_at: Option<DateTime<Utc>>,
}

impl fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewApiKey").field("id", &self.id).field("owner", &self.owner).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub prefix: String,
    pub scopes: Scopes,
    pub adapters: Option<Vec<NamePattern>>,
    pub limits: RequestLimits,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Keys that are not revoked with their digests, and the limits of owners: what a server needs to authenticate requests.
#[derive(Debug, Clone, Default)]
pub struct AccessSnapshot {
    pub version: i64,
    /// Whether the database has or had a key, revoked ones included.
    pub has_keys: bool,
    /// Digest (sha256, hexadecimal) and key.
    pub keys: Vec<(String, ApiKey)>,
    pub owners: Vec<Owner>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("support-intents", "support-intents", true),
            ("support-intents", "support-intents-2", false),
            ("support-*", "support-", true),
            ("support-*", "support-intents", true),
            ("support-*", "other-support-intents", false),
            ("*", "", true),
            ("*-prod", "a-prod", true),
            ("*-prod", "a-prod-b", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("", "a", false),
        ] {
            assert_eq!(NamePattern(pattern.to_string()).matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn scopes_are_written_by_name() {
        let scopes: Scopes = [Scope::Predict, Scope::AdaptersRead].into_iter().collect();
        assert_eq!(serde_json::to_string(&scopes).unwrap(), r#"["predict","adapters:read"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(r#"["adapters:read","predict"]"#).unwrap(), scopes);
        assert!(Scope::ALL.into_iter().all(|scope| Scopes::ALL.contains(scope)));
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
    }
}
