//! Entries of the audit log, and the usage of a day.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Entry of the audit log: who did what to which object. It holds no texts and no keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAuditEntry {
    /// `None` where the request had no valid credential.
    pub owner: Option<String>,
    pub credential: Option<String>,
    pub action: String,
    pub object: Option<String>,
    pub status: u16,
    pub client_address: Option<String>,
    pub request_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({"id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "created_at": "2026-01-05T09:34:11Z", "owner": "acme",
    "credential": "key:01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f", "action": "create_job",
    "object": "/jobs/01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e10", "status": 202, "client_address": "192.0.2.7",
    "request_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e60"}))]
pub struct AuditEntry {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    /// Owner of the caller; `null` where the request had no valid credential.
    pub owner: Option<String>,
    /// `key:` and the id of an API key, `setting:` and the start of a digest for a key of the settings, or `jwt:` and the subject
    /// of a token.
    pub credential: Option<String>,
    /// Operation id of the call.
    pub action: String,
    /// Path of the object that the call created or changed.
    pub object: Option<String>,
    /// HTTP status of the response.
    pub status: u16,
    pub client_address: Option<String>,
    pub request_id: String,
}

/// Which entries of the audit log are listed.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub owner: Option<String>,
    pub action: Option<String>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

/// Usage of one adapter by one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageCounts {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

impl UsageCounts {
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
    }
}

/// Usage that is added to a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageIncrement {
    pub owner: String,
    /// Name or id of the adapter; empty for the base model.
    pub adapter: String,
    pub counts: UsageCounts,
}

/// Usage of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    pub owner: String,
    pub day: NaiveDate,
    pub adapter: String,
    pub counts: UsageCounts,
}
