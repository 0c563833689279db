//! Events of a job in OpenAI's format, newest first.

use crate::http::events::PAGE_SIZE;
use crate::http::openai::ids::IdKind;
use crate::http::state::AppState;
use crate::store::{Event, EventKind, Job};
use espalier_core::error::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"object": "fine_tuning.job.event", "id": "ftevent-01938f3e5a1c7c3e9d0a3b1f0c2d4e5f-12", "created_at": 1767605460,
    "level": "info", "message": "Step 20: train loss 0.61", "type": "metrics", "data": {"step": 20, "train_loss": 0.61}}))]
pub struct JobEvent {
    /// `fine_tuning.job.event`
    pub object: &'static str,
    pub id: String,
    pub created_at: i64,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    pub message: String,
    /// `message` or `metrics`.
    #[serde(rename = "type")]
    pub event_type: &'static str,
    #[schema(value_type = Object)]
    pub data: Value,
}

/// Events before the one with the id `after`, the newest first.
///
/// # Errors
/// `Invalid` for an id that is none of this job's events; errors of the store.
pub async fn list(state: &AppState, job: &Job, after: Option<&str>) -> Result<Vec<JobEvent>> {
    let before = match after {
        None => i64::MAX,
        Some(id) => parse_sequence(job.id, id)
            .ok_or_else(|| Error::invalid_field("/after", format!("\"{id}\" is not the id of an event of this job")))?,
    };
    let events = read_all(state, job.id).await?;
    let events = events.iter().rev().filter(|event| event.sequence < before);
    Ok(events.map(|event| to_view(job, event)).collect())
}

/// All events of a job, in order.
///
/// # Errors
/// Of the store.
pub async fn read_all(state: &AppState, job: Uuid) -> Result<Vec<Event>> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = state.store.events(job, after, PAGE_SIZE).await?;
        let is_last = page.len() < PAGE_SIZE as usize;
        after = page.last().map_or(after, |event| event.sequence);
        events.extend(page);
        if is_last {
            return Ok(events);
        }
    }
}

/// Losses and accuracies of a metrics event under OpenAI's names; empty for other splits than `train` and `validation`.
pub fn metrics_of(event: &Event) -> Map<String, Value> {
    let metrics = &event.data["metrics"];
    let names = match event.data["split"].as_str() {
        Some("train") => ["train_loss", "train_mean_token_accuracy"],
        Some("validation") => ["valid_loss", "valid_mean_token_accuracy"],
        _ => return Map::new(),
    };
    let values = names.into_iter().zip(["loss", "accuracy"].map(|name| metrics[name].clone()));
    values.filter(|(_, value)| value.is_number()).map(|(name, value)| (name.to_string(), value)).collect()
}

fn to_view(job: &Job, event: &Event) -> JobEvent {
    let (level, event_type, message, data) = match event.kind {
        EventKind::Metrics => {
            let mut data = metrics_of(event);
            let values: Vec<String> =
                data.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
            let message = match values.is_empty() {
                true => format!("Step {}: {}", event.data["step"], event.data["split"].as_str().unwrap_or_default()),
                false => format!("Step {}: {}", event.data["step"], values.join(", ")),
            };
            data.insert("step".to_string(), event.data["step"].clone());
            ("info", "metrics", message, Value::Object(data))
        }
        EventKind::Status => {
            let (level, message) = status_message(job, &event.data);
            (level, "message", message, json!({}))
        }
    };
    JobEvent {
        object: "fine_tuning.job.event",
        id: format!("ftevent-{}-{}", job.id.simple(), event.sequence),
        created_at: event.created_at.timestamp(),
        level,
        message,
        event_type,
        data,
    }
}

fn status_message(job: &Job, data: &Value) -> (&'static str, String) {
    let detail = data["error"]["detail"].as_str().unwrap_or_default();
    match data["status"].as_str().unwrap_or_default() {
        "queued" if detail.is_empty() => ("info", format!("Fine-tuning job {} is queued", IdKind::Job.format(job.id))),
        "queued" => ("warn", format!("Fine-tuning job is queued again: {detail}")),
        "running" => ("info", "Fine-tuning job started".to_string()),
        "succeeded" => ("info", "The job has successfully completed".to_string()),
        "failed" => ("error", format!("The job failed: {detail}")),
        other => ("info", format!("The job is {other}")),
    }
}

fn parse_sequence(job: Uuid, id: &str) -> Option<i64> {
    let (of_job, sequence) = id.strip_prefix("ftevent-")?.split_once('-')?;
    (Uuid::parse_str(of_job).ok()? == job).then(|| sequence.parse().ok()).flatten()
}
