//! Shared state of the handlers.

use super::auth::ApiKeys;
use super::metrics::Metrics;
use super::settings::Settings;
use crate::serving::InferenceService;
use crate::store::Store;
use crate::store::blobs::DataDir;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use espalier_core::model::BaseModel;
use espalier_core::{artifact, dataset};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// State shared by all handlers; cloning is cheap.
#[derive(Clone)]
pub struct AppState {
    pub store: Arc<dyn Store>,
    pub base: Arc<BaseModel>,
    pub data_dir: Arc<DataDir>,
    pub serving: InferenceService,
    /// Wakes idle workers of this process after a job is queued; does nothing in a process without workers.
    pub notify_workers: Arc<dyn Fn() + Send + Sync>,
    pub settings: Arc<Settings>,
    pub dataset_settings: Arc<dataset::Limits>,
    pub artifact_settings: artifact::ImportLimits,
    pub api_keys: Arc<ApiKeys>,
    /// Cancelled when the server shuts down: the readiness check fails and event streams end.
    pub shutdown: CancellationToken,
    /// Content of `GET /openapi.yaml`.
    pub openapi_yaml: Arc<str>,
    pub metrics: Arc<Metrics>,
    pub concurrency: Arc<ConcurrencyLimits>,
}

/// Limits on concurrent work of the API.
pub struct ConcurrencyLimits {
    /// Validations of datasets and uploaded adapters.
    pub validations: Arc<Semaphore>,
    /// Open event streams.
    pub event_streams: Arc<Semaphore>,
}

impl ConcurrencyLimits {
    pub fn new(settings: &Settings) -> Self {
        Self {
            validations: Arc::new(Semaphore::new(settings.max_concurrent_validations)),
            event_streams: Arc::new(Semaphore::new(settings.max_event_streams)),
        }
    }
}

/// Lets handlers take the state as a plain argument.
impl FromRequestParts<Self> for AppState {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, state: &Self) -> Result<Self, Infallible> {
        Ok(state.clone())
    }
}
