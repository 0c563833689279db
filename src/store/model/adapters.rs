//! Adapters: their rows, and references to them.

use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Debug, Clone)]
pub struct NewAdapter {
    pub id: Uuid,
    pub owner: String,
    pub name: Option<String>,
    /// `None` for an imported adapter.
    pub job_id: Option<Uuid>,
    pub description: AdapterDescription,
    /// Limit on the bytes of all adapters of the owner, this one included; `None` is no limit.
    pub max_owner_bytes: Option<u64>,
}

/// Description of an adapter, copied from its folder into the row for lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdapterDescription {
    /// sha256 of its files, hexadecimal without prefix. It is also the folder's name.
    pub version: String,
    pub task: espalier_core::task::Config,
    pub method: espalier_core::adapter::Config,
    pub labels: Vec<String>,
    /// Tokens of an input that are read; `None` in rows of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Size of the folder in bytes.
    pub bytes: u64,
    /// Fingerprint of the base model that it was trained on.
    #[serde(rename = "base")]
    pub base_fingerprint: Option<String>,
    /// False for a plain PEFT folder, which has no fingerprint.
    pub base_verified: bool,
    #[schema(value_type = Option<Object>)]
    pub metrics: Option<serde_json::Value>,
    /// Origin of the adapter: job, host, times. It is not in the folder, so that equal adapters have equal versions.
    #[schema(value_type = Object)]
    pub provenance: serde_json::Value,
}

/// Adapters and unfinished jobs of an owner that belong to one base model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUsage {
    pub fingerprint: String,
    pub adapters: u64,
    pub queued_jobs: u64,
    pub running_jobs: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub id: Uuid,
    pub owner: String,
    pub name: Option<String>,
    pub job_id: Option<Uuid>,
    pub description: AdapterDescription,
    /// Whether its name points to it.
    pub is_current: bool,
    pub created_at: DateTime<Utc>,
}

/// Adapter that a reference names at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedAdapter {
    pub id: Uuid,
    pub owner: String,
    pub name: Option<String>,
    /// sha256 of its files, hexadecimal without prefix.
    pub version: String,
}

/// Reference of a user to an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    Id(Uuid),
    Name(String),
    /// Name and unique prefix of a version, 8 to 64 hexadecimal digits.
    Version(String, String),
    /// Adapter that another owner shares: the owner, and a name or a version.
    OfOwner(String, Box<Reference>),
}

impl Reference {
    /// Whether the text contains U+0000. No stored name does, and Postgres rejects such a parameter.
    pub fn contains_nul(&self) -> bool {
        match self {
            Self::Id(_) => false,
            Self::Name(name) => name.contains('\0'),
            Self::Version(name, version_prefix) => name.contains('\0') || version_prefix.contains('\0'),
            Self::OfOwner(owner, reference) => owner.contains('\0') || reference.contains_nul(),
        }
    }

    /// Parses `id`, `name` or `name@version`, where the version may begin with `sha256:`, and `owner/name` or `owner/name@version`
    /// for an adapter that another owner shares.
    ///
    /// # Errors
    /// `Invalid` if the version is not 8 to 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self> {
        if let Ok(id) = Uuid::parse_str(text) {
            return Ok(Self::Id(id));
        }
        if let Some((owner, name)) = text.split_once('/') {
            return match Self::parse(name)? {
                reference @ (Self::Name(_) | Self::Version(..)) if !owner.is_empty() => {
                    Ok(Self::OfOwner(owner.to_string(), Box::new(reference)))
                }
                _ => Ok(Self::Name(text.to_string())),
            };
        }
        let Some((name, version)) = text.split_once('@') else { return Ok(Self::Name(text.to_string())) };
        let version_prefix = version.strip_prefix("sha256:").unwrap_or(version).to_ascii_lowercase();
        let is_valid =
            (8..=64).contains(&version_prefix.len()) && version_prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_valid {
            true => Ok(Self::Version(name.to_string(), version_prefix)),
            false => Err(Error::invalid(
                "invalid_version",
                format!("\"{version}\" is not a version: give 8 to 64 hexadecimal digits of it after the @"),
            )),
        }
    }
}
