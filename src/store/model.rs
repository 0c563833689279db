//! Rows of the database as Rust types.

mod access;
mod adapters;
mod audit;
mod blobs;
mod idempotency;
mod owner_deletion;
mod retention;
mod webhooks;

pub use access::{
    AccessSnapshot, ApiKey, NamePattern, NewApiKey, Owner, OwnerLimits, OwnerStorage, RequestLimits, Scope, Scopes,
    is_owner_name,
};
pub use adapters::{Adapter, AdapterDescription, BaseUsage, NewAdapter, Reference, ResolvedAdapter};
pub use audit::{AuditEntry, AuditFilter, NewAuditEntry, UsageCounts, UsageIncrement, UsageRow};
pub use blobs::BlobKind;
pub use idempotency::{FinishedRequest, KeyedRequest, RequestClaim, RequestStart, StoredResponse};
pub use owner_deletion::{DeletedFile, DeletedOwnerRows, OwnerDeletion};
pub use retention::{DeletedKind, DeletedRows, RetentionPolicy};
pub use webhooks::{
    ClaimedDelivery, DeliveryOutcome, DeliveryStatus, NewWebhook, Webhook, WebhookDelivery, WebhookEvent,
};

use chrono::{DateTime, Utc};
use espalier_core::dataset::{Options, Report};
use espalier_core::training::{Plan, Progress, Validation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// Owner of the keys in the settings, and of every caller of a server without keys.
pub const DEFAULT_OWNER: &str = "default";

#[derive(Debug, Clone)]
pub struct NewDataset {
    pub owner: String,
    pub file_name: Option<String>,
    /// sha256 of the uploaded file, hexadecimal. It is also the blob's name.
    pub hash: String,
    pub bytes: u64,
    pub options: Options,
    pub report: Report,
    /// Limits on the datasets of the owner, this one included.
    pub limits: DatasetLimits,
}

/// Limits on all datasets of an owner. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DatasetLimits {
    pub bytes: Option<u64>,
    pub rows: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    pub id: Uuid,
    #[serde(skip)]
    pub owner: String,
    pub file_name: Option<String>,
    /// sha256 of the file, hexadecimal.
    pub hash: String,
    pub bytes: u64,
    pub options: Options,
    pub report: Report,
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Queued,
    Paused,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Paused, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Paused => "paused",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Action that an owner has requested for a running job. The worker performs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestedAction {
    Cancel,
    Pause,
}

impl RequestedAction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Cancel, Self::Pause].into_iter().find(|action| action.as_str() == name)
    }
}

/// Error of a failed job, shown to its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    pub code: String,
    pub detail: String,
}

/// Why an attempt ended whose job can still succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFault {
    /// A bug, or a failure of the machine. These are counted.
    Internal,
    /// A full disk or a lost database. These are not counted.
    Environment,
}

/// Pairs that an owner attaches to a job.
pub type Metadata = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub struct NewJob {
    pub id: Uuid,
    pub owner: String,
    pub name: Option<String>,
    pub dataset_id: Uuid,
    pub validation_dataset_id: Option<Uuid>,
    pub options: Options,
    pub spec: Plan,
    pub metadata: Metadata,
    /// Credential that created it.
    pub created_by: Option<String>,
    /// Trace context of the request, as [`TraceContext::to_column`](crate::telemetry::TraceContext::to_column) writes it.
    pub trace_context: Option<String>,
    /// Place among the owner's queued jobs, from -100 to 100; the highest is claimed first.
    pub priority: i32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub id: Uuid,
    pub owner: String,
    pub name: Option<String>,
    pub status: Status,
    pub requested_action: Option<RequestedAction>,
    pub dataset_id: Uuid,
    pub validation_dataset_id: Option<Uuid>,
    pub options: Options,
    pub spec: Plan,
    pub metadata: Metadata,
    pub created_by: Option<String>,
    pub priority: i32,
    pub progress: Option<Progress>,
    pub metrics: Option<serde_json::Value>,
    pub adapter_id: Option<Uuid>,
    pub error: Option<JobError>,
    /// Number of claims.
    pub attempt: u32,
    /// Earliest time of the next attempt of a queued job; `None` if it can start at once.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Of a running job.
    pub worker: Option<JobWorker>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Trace that the attempts are a part of.
    pub trace_context: Option<String>,
}

impl Job {
    /// Dataset whose rows contain the validation examples, and how the job reads it; `None` as at its upload.
    pub fn validation_source(&self) -> (Uuid, Option<Options>) {
        match self.spec.validation() {
            Validation::Fraction(_) => (self.dataset_id, Some(self.options.clone())),
            Validation::Split(split) => (self.dataset_id, Some(self.options.with_split(*split))),
            Validation::DatasetId(id) => (*id, None),
        }
    }
}

/// Process that runs a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobWorker {
    /// Identity of the data folder's user; a server that is restarted keeps it.
    pub instance_id: Uuid,
    /// Identity of the process.
    pub process_id: Uuid,
    /// Time from which another process may run the job, unless the worker extends its lease before.
    pub lease_expires_at: DateTime<Utc>,
}

/// Identity of a worker: the data folder's instance and the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerId {
    pub instance_id: Uuid,
    pub process_id: Uuid,
}

/// Base model and kernel set, which determine the bytes of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Fingerprint of the base model.
    pub base: String,
    pub kernels: String,
}

/// What holds for the claims of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRules {
    /// Only jobs of this platform are claimed.
    pub platform: Platform,
    pub lease_duration: Duration,
    /// Consecutive attempts that end with their process, after which a job fails.
    pub max_attempts: u32,
    /// Running jobs of an owner that has no limit of its own; `None` is no limit.
    pub max_running_per_owner: Option<u64>,
}

/// Right to write to a job while `epoch` is the lease epoch of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub job_id: Uuid,
    pub epoch: i64,
}

/// A queued job that a worker has claimed, with its lease and its datasets.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    pub lease: Lease,
    pub job: Job,
    pub dataset: Dataset,
    pub validation_dataset: Option<Dataset>,
}

/// Event of a job. `sequence` increases within the job and is the SSE id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub sequence: i64,
    /// `status` or `metrics`.
    pub kind: EventKind,
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// `{"status": …}`, with `attempt`, `error` or `adapter_id` if present.
    Status,
    /// A metrics row: `{"step", "split", "metrics"}`.
    Metrics,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Metrics => "metrics",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Status, Self::Metrics].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Numbers of connections to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    pub open: u32,
    /// Open and not in use.
    pub idle: u32,
    pub max: u32,
}

/// Page of a list, newest first: at most `limit` rows, all older than the row `after`.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    pub limit: u32,
    pub after: Option<Uuid>,
}
