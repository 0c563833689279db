//! What the handlers share.
//!
//! Knows nothing of how its parts were made: `cli` puts them together.

use super::auth::Keys;
use super::metrics::Metrics;
use super::settings::Settings;
use crate::serving::Serving;
use crate::store::Store;
use crate::store::blobs::DataFolder;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use espalier_core::model::Base;
use espalier_core::{artifact, data};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The parts of the house that the API speaks for; cloned freely.
#[derive(Clone)]
pub struct State {
    pub store: Arc<dyn Store>,
    pub base: Arc<Base>,
    pub folder: Arc<DataFolder>,
    pub serving: Serving,
    /// Says that a job was queued: `Workers::wake`, or nothing where no worker runs in this process.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    pub settings: Arc<Settings>,
    pub data: Arc<data::Settings>,
    pub artifact: artifact::Settings,
    pub keys: Arc<Keys>,
    /// Cancelled when the server is to stop: it is not ready any more, and streams end.
    pub shutdown: CancellationToken,
    pub metrics: Arc<Metrics>,
    pub turns: Arc<Turns>,
}

/// Who may do what at the same time.
pub struct Turns {
    /// Checks of datasets and adapters.
    pub checks: Arc<Semaphore>,
    /// Open event streams.
    pub streams: Arc<Semaphore>,
}

impl Turns {
    pub fn new(settings: &Settings) -> Self {
        Self {
            checks: Arc::new(Semaphore::new(settings.max_checks)),
            streams: Arc::new(Semaphore::new(settings.max_streams)),
        }
    }
}

/// Handlers name the state itself as an argument.
impl FromRequestParts<Self> for State {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, state: &Self) -> Result<Self, Infallible> {
        Ok(state.clone())
    }
}
