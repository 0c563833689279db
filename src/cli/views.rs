//! The answers of the API as far as the commands show them. A field that is not known here is passed over, so that an
//! older command line goes on working with a newer server.

use crate::data::Report;
use crate::store::JobError;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    pub id: String,
    pub name: Option<String>,
    pub status: String,
    #[serde(default)]
    pub wish: Option<String>,
    #[serde(default)]
    pub queue_place: Option<u64>,
    #[serde(default)]
    pub dataset_id: Option<String>,
    /// Only where one job is asked for.
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
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// The name by which its adapter is asked for.
    pub fn adapter(&self) -> Option<&str> {
        self.name.as_deref().or(self.adapter_id.as_deref())
    }
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Progress {
    pub step: u64,
    pub total_steps: u64,
    pub epoch: f64,
    pub train_loss: f64,
    pub examples_per_second: f64,
    pub eta_seconds: f64,
}

/// One line of a job's history.
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

#[derive(Debug, Clone, Deserialize)]
pub struct List<T> {
    pub data: Vec<T>,
    pub next: Option<String>,
}

/// `{"type": "lora", …}` as `lora`.
pub fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or("")
}
