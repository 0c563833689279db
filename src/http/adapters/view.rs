//! How an adapter is shown.
//!
//! Knows nothing of requests.

use crate::store::{Adapter, AdapterDescription};
use chrono::{DateTime, Utc};
use espalier_core::{adapter, task};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// An adapter: what a job has made, or what came from elsewhere. It never changes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Adapter, example = json!({
    "id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "name": "support-intents",
    "version": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5",
    "job_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f",
    "task": {"type": "sequence_classification", "pooling": "mean"},
    "method": {"type": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["query", "value"], "rslora": false},
    "labels": ["card_arrival", "lost_or_stolen_card"], "bytes": 315392,
    "base": "sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9", "base_verified": true,
    "metrics": {"validation": {"loss": 0.31, "accuracy": 0.93, "macro_f1": 0.92}},
    "provenance": {}, "created_at": "2026-01-05T09:34:11Z"
}))]
pub struct AdapterView {
    pub id: Uuid,
    /// The name under which it was made; the name itself points to the newest adapter of that name.
    pub name: Option<String>,
    /// `sha256:…` over its files.
    pub version: String,
    /// `null` for an imported one.
    pub job_id: Option<Uuid>,
    pub task: task::Config,
    pub method: adapter::Config,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    pub bytes: u64,
    /// The fingerprint of the base it was made for.
    pub base: Option<String>,
    /// Whether that fingerprint is known: a plain PEFT folder carries none, so names and shapes were checked instead.
    pub base_verified: bool,
    /// What was measured on the validation examples.
    #[schema(value_type = Option<Object>)]
    pub metrics: Option<serde_json::Value>,
    /// Who made it, when and how fast.
    #[schema(value_type = Object)]
    pub provenance: serde_json::Value,
    pub created_at: DateTime<Utc>,
}

impl From<Adapter> for AdapterView {
    fn from(adapter: Adapter) -> Self {
        let Adapter { id, name, job_id, description, created_at, .. } = adapter;
        let AdapterDescription {
            version,
            task,
            method,
            labels,
            bytes,
            base_fingerprint: base,
            base_verified,
            metrics,
            provenance,
        } = description;
        let version = format!("sha256:{version}");
        Self {
            id,
            name,
            version,
            job_id,
            task,
            method,
            labels,
            bytes,
            base,
            base_verified,
            metrics,
            provenance,
            created_at,
        }
    }
}

/// Which adapter it was that answered, or that a job has made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdapterVersion)]
pub struct AdapterVersion {
    pub id: Uuid,
    pub name: Option<String>,
    /// `sha256:…` over its files.
    pub version: String,
}

impl From<&Adapter> for AdapterVersion {
    fn from(adapter: &Adapter) -> Self {
        let version = format!("sha256:{}", adapter.description.version);
        Self { id: adapter.id, name: adapter.name.clone(), version }
    }
}
