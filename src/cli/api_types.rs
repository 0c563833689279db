//! Response types of the API, with the fields that commands show. Unknown fields are ignored, so that an older client works with
//! a newer server.

use crate::store::JobError;
use espalier_core::dataset::Report;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    pub id: String,
    pub name: Option<String>,
    pub status: String,
    #[serde(default)]
    pub requested_action: Option<String>,
    #[serde(default)]
    pub queue_position: Option<u64>,
    #[serde(default)]
    pub waiting_for: Option<WaitingFor>,
    #[serde(default)]
    pub dataset_id: Option<String>,
    /// Only in responses with a single job.
    #[serde(default)]
    pub dataset: Option<Dataset>,
    #[serde(default)]
    pub task: Value,
    #[serde(default)]
    pub method: Value,
    #[serde(default)]
    pub hyperparameters: Value,
    pub progress: Option<Progress>,
    pub metrics: Option<Value>,
    pub adapter_id: Option<String>,
    pub error: Option<JobError>,
    #[serde(default)]
    pub attempt: u32,
    pub created_at: String,
    #[serde(default)]
    pub started_at: Option<String>,
    #[serde(default)]
    pub finished_at: Option<String>,
}

impl Job {
    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// Name or id of the trained adapter.
    pub fn adapter_reference(&self) -> Option<&str> {
        self.name.as_deref().or(self.adapter_id.as_deref())
    }
}

/// Worker that a queued job needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WaitingFor {
    pub base: String,
    pub kernels: String,
}

/// Training progress.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Progress {
    pub step: u64,
    pub total_steps: u64,
    pub epoch: f64,
    pub train_loss: f64,
    pub examples_per_second: f64,
    pub eta_seconds: f64,
}

/// Event of a job.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub sequence: i64,
    pub kind: String,
    pub data: Value,
    #[serde(default)]
    pub created_at: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Dataset {
    pub id: String,
    pub report: Report,
}

/// Formats `{"type": "lora", "rank": 8}` as `lora, rank 8`.
pub fn format_settings(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten().filter(|(name, _)| *name != "type");
    let fields = fields.map(|(name, value)| format!("{name} {}", format_value(value)));
    let kind = Some(type_name(value).to_string()).filter(|kind| !kind.is_empty());
    kind.into_iter().chain(fields).collect::<Vec<_>>().join(", ")
}

/// Formats a value without quotes and brackets.
fn format_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.contains_key("type") => type_name(value).to_string(),
        Value::Array(items) => items.iter().map(format_value).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}

/// Text of a field; empty if it is null or missing.
pub fn string_field(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_string()
}

/// Formats `2026-01-05T09:30:00.123Z` as `2026-01-05 09:30:00`, in UTC.
pub fn format_timestamp(text: &str) -> String {
    text.split(['.', 'Z', '+']).next().unwrap_or(text).replace('T', " ")
}

/// Returns the `type` of an object, or an empty string.
pub fn type_name(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_formatted_without_brackets() {
        let lora = json!({"type": "lora", "rank": 8, "target_modules": ["query", "value"]});
        assert_eq!(format_settings(&lora), "lora, rank 8, target_modules query value");
        let race = json!({"type": "auto", "candidates": [{"type": "head"}, {"type": "lora", "rank": 8}]});
        assert_eq!(format_settings(&race), "auto, candidates head lora");
        assert_eq!(format_settings(&Value::Null), "");
    }

    #[test]
    fn timestamps_are_shown_to_the_second() {
        assert_eq!(format_timestamp("2026-01-05T09:30:00.123Z"), "2026-01-05 09:30:00");
        assert_eq!(format_timestamp("2026-01-05T09:30:00Z"), "2026-01-05 09:30:00");
    }
}
