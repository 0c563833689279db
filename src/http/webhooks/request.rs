//! Body of `POST /webhooks`, and its answer.

use crate::store::{NewWebhook, Webhook, WebhookEvent};
use crate::worker::webhooks::{AddressPolicy, check_url, new_secret};
use espalier_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "https://example.com/hooks", "events": ["job.succeeded", "job.failed"]}))]
pub struct NewWebhookRequest {
    /// URL that is called, `https://` or `http://`. Addresses inside networks are refused unless the operator allows them.
    pub url: String,
    /// Events to call it for: `job.succeeded`, `job.failed`, `job.cancelled`. Default: all three.
    #[serde(default = "all_events")]
    pub events: Vec<WebhookEvent>,
}

/// Webhook with its secret, which is not shown again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "01938f3e-4b2d-7a10-8c11-0a9b8c7d6e5f", "url": "https://example.com/hooks",
    "events": ["job.succeeded", "job.failed"], "disabled_at": null, "consecutive_failures": 0, "created_at": "2026-01-05T09:29:58Z",
    "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD5l0aS1mJ8nI="}))]
pub struct CreatedWebhook {
    #[serde(flatten)]
    pub webhook: Webhook,
    /// Key of the signatures, as the libraries of Standard Webhooks take it.
    pub secret: String,
}

fn all_events() -> Vec<WebhookEvent> {
    WebhookEvent::JOB_EVENTS.to_vec()
}

impl NewWebhookRequest {
    /// Returns the webhook and its new secret.
    ///
    /// # Errors
    /// `Invalid` for a URL that is malformed or not allowed, and for events that are missing, repeated or no job's.
    pub fn into_webhook(self, id: Uuid, owner: String, addresses: &AddressPolicy) -> Result<(NewWebhook, String)> {
        check_url(&self.url, addresses).map_err(|reason| Error::invalid_field("/url", reason))?;
        let is_repeated = |index: usize| self.events[..index].contains(&self.events[index]);
        if self.events.is_empty()
            || (0..self.events.len()).any(is_repeated)
            || self.events.contains(&WebhookEvent::Test)
        {
            let names = WebhookEvent::JOB_EVENTS.map(WebhookEvent::as_str).join(", ");
            return Err(Error::invalid_field("/events", format!("must be some of {names}, each once")));
        }
        let secret = new_secret()?;
        let webhook = NewWebhook { id, owner, url: self.url, events: self.events, secret: secret.clone() };
        Ok((webhook, secret))
    }
}
