//! Response types of adapters.

use crate::store::{Adapter, AdapterDescription, ResolvedAdapter};
use chrono::{DateTime, Utc};
use espalier_core::{adapter, task};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Trained or imported adapter. It is immutable.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Adapter, example = json!({
    "id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "name": "support-intents", "is_current": true,
    "version": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5",
    "job_id": "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f",
    "task": {"type": "sequence_classification", "pooling": "mean"},
    "method": {"type": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["query", "value"], "rslora": false},
    "labels": ["card_arrival", "lost_or_stolen_card"], "max_length": 128, "bytes": 315392,
    "base": "sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9", "base_verified": true,
    "metrics": {"validation": {"loss": 0.31, "accuracy": 0.93, "macro_f1": 0.92}},
    "provenance": {}, "created_at": "2026-01-05T09:34:11Z"
}))]
pub struct AdapterView {
    pub id: Uuid,
    /// Name given at creation. A name refers to the adapter that was created with it or activated last.
    pub name: Option<String>,
    /// Whether the name refers to this adapter.
    pub is_current: bool,
    /// `sha256:…` of the adapter's files.
    pub version: String,
    /// Job that trained it; `null` for an imported adapter.
    pub job_id: Option<Uuid>,
    pub task: task::Config,
    pub method: adapter::Config,
    /// Labels in the order of the head's rows.
    pub labels: Vec<String>,
    /// Tokens of an input that are read, special tokens included; longer inputs are cut at the end. `null` for adapters of older
    /// versions of espalier.
    pub max_length: Option<usize>,
    /// Size of the adapter's files.
    pub bytes: u64,
    /// Fingerprint of the base model it was trained on.
    pub base: Option<String>,
    /// `false` for an imported adapter without a fingerprint, for which only names and shapes were checked.
    pub base_verified: bool,
    /// Metrics on the validation examples.
    #[schema(value_type = Option<Object>)]
    pub metrics: Option<serde_json::Value>,
    /// Origin of the adapter, such as the training time.
    #[schema(value_type = Object)]
    pub provenance: serde_json::Value,
    pub created_at: DateTime<Utc>,
}

impl From<Adapter> for AdapterView {
    fn from(adapter: Adapter) -> Self {
        let Adapter { id, name, job_id, description, is_current, created_at, .. } = adapter;
        let AdapterDescription {
            version,
            task,
            method,
            labels,
            max_length,
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
            is_current,
            version,
            job_id,
            task,
            method,
            labels,
            max_length,
            bytes,
            base,
            base_verified,
            metrics,
            provenance,
            created_at,
        }
    }
}

/// Id, name and version of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdapterVersion {
    pub id: Uuid,
    pub name: Option<String>,
    /// `sha256:…` of the adapter's files.
    pub version: String,
}

impl From<&ResolvedAdapter> for AdapterVersion {
    fn from(adapter: &ResolvedAdapter) -> Self {
        Self { id: adapter.id, name: adapter.name.clone(), version: format!("sha256:{}", adapter.version) }
    }
}
