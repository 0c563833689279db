//! What the handlers share.
//!
//! Knows nothing of how its parts were made: `cli` puts them together.

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

/// The parts of the house that the API speaks for; cloned freely.
#[derive(Clone)]
pub struct AppState {
    pub store: Arc<dyn Store>,
    pub base: Arc<BaseModel>,
    pub data_dir: Arc<DataDir>,
    pub serving: InferenceService,
    /// Says that a job was queued: `Workers::wake`, or nothing where no worker runs in this process.
    pub notify_workers: Arc<dyn Fn() + Send + Sync>,
    pub settings: Arc<Settings>,
    pub dataset_settings: Arc<dataset::Limits>,
    pub artifact_settings: artifact::ImportLimits,
    pub api_keys: Arc<ApiKeys>,
    /// Cancelled when the server is to stop: it is not ready any more, and streams end.
    pub shutdown: CancellationToken,
    pub metrics: Arc<Metrics>,
    pub concurrency: Arc<ConcurrencyLimits>,
}

/// Who may do what at the same time.
pub struct ConcurrencyLimits {
    /// Checks of datasets and adapters.
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

/// Handlers name the state itself as an argument.
impl FromRequestParts<Self> for AppState {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, state: &Self) -> Result<Self, Infallible> {
        Ok(state.clone())
    }
}
