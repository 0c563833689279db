//! Webhooks: endpoints of an owner that are called when a job ends, and their deliveries.

use super::Status;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Event that a webhook is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum WebhookEvent {
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    #[serde(rename = "job.failed")]
    JobFailed,
    #[serde(rename = "job.cancelled")]
    JobCancelled,
    /// Sent by `POST /webhooks/{id}/test`, whatever the webhook's events are.
    #[serde(rename = "webhook.test")]
    Test,
}

impl WebhookEvent {
    pub const JOB_EVENTS: [Self; 3] = [Self::JobSucceeded, Self::JobFailed, Self::JobCancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobSucceeded => "job.succeeded",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::Test => "webhook.test",
        }
    }

    /// Event of a job that ends with this status; `None` for a job that goes on.
    pub fn of_status(status: Status) -> Option<Self> {
        match status {
            Status::Succeeded => Some(Self::JobSucceeded),
            Status::Failed => Some(Self::JobFailed),
            Status::Cancelled => Some(Self::JobCancelled),
            Status::Queued | Status::Paused | Status::Running => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct NewWebhook {
    pub id: Uuid,
    pub owner: String,
    pub url: String,
    pub events: Vec<WebhookEvent>,
    /// Key of the signatures, with the prefix `whsec_`.
    pub secret: String,
}

/// Endpoint that is called when a job of its owner ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({"id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f", "url": "https://example.com/hooks",
    "events": ["job.succeeded", "job.failed"], "disabled_at": null, "consecutive_failures": 0, "created_at": "2026-01-05T09:29:58Z"}))]
pub struct Webhook {
    pub id: Uuid,
    #[serde(skip)]
    pub owner: String,
    pub url: String,
    pub events: Vec<WebhookEvent>,
    /// Time since which it is not called any more, because too many calls in a row failed or it answered 410 (Gone).
    pub disabled_at: Option<DateTime<Utc>>,
    /// Number of failed calls since the last success.
    pub consecutive_failures: u32,
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Waits for its next attempt.
    Pending,
    Delivered,
    /// All attempts failed, or the webhook is disabled.
    Failed,
}

/// Event for a webhook with the outcome of its attempts.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(example = json!({"id": "01938f41-77aa-7d20-b1c2-3d4e5f607182", "event": "job.succeeded", "status": "delivered", "attempts": 1,
    "response_status": 204, "error": null, "next_attempt_at": null, "created_at": "2026-01-05T09:41:12Z",
    "finished_at": "2026-01-05T09:41:12Z", "payload": {"type": "job.succeeded"}}))]
pub struct WebhookDelivery {
    /// Also the header `webhook-id`, which is the same in all attempts.
    pub id: Uuid,
    pub event: WebhookEvent,
    pub status: DeliveryStatus,
    pub attempts: u32,
    /// HTTP status of the last attempt's response, if there was one.
    pub response_status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// JSON that is sent.
    #[schema(value_type = Object)]
    pub payload: serde_json::Value,
}

/// Delivery that a deliverer has claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedDelivery {
    pub id: Uuid,
    pub webhook_id: Uuid,
    pub url: String,
    pub secret: String,
    pub payload: serde_json::Value,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Time of the database's clock.
    pub now: DateTime<Utc>,
}

/// Outcome of an attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered {
        response_status: u16,
    },
    Failed {
        response_status: Option<u16>,
        error: String,
        /// Delay of the next attempt; without one the delivery has failed.
        retry_after: Option<std::time::Duration>,
    },
    /// The endpoint answered 410: it is disabled.
    Gone,
}
