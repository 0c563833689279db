//! Shared state of the handlers, with the limits and timeouts of the public API, which `config` fills.

use super::access_sync::AccessSync;
use super::allowed_hosts::AllowedHosts;
use super::auth::Access;
use super::client_address::ForwardedFor;
use super::connection::ConnectionSettings;
use super::cors::CorsOrigins;
use super::job_metrics::JobMetrics;
use super::metrics::Metrics;
use super::usage_counters::UsageCounters;
use crate::serving::InferenceService;
use crate::store::blobs::{BlobStore, DataDir};
use crate::store::{OwnerLimits, Store};
use crate::worker::webhooks::WebhookSettings;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use espalier_core::model::{BaseModel, hub};
use espalier_core::{artifact, dataset};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// State shared by all handlers; cloning is cheap.
#[derive(Clone)]
pub struct AppState {
    pub store: Arc<dyn Store>,
    pub base: Arc<BaseModel>,
    /// For files that are still being written.
    pub data_dir: Arc<DataDir>,
    pub blobs: Arc<BlobStore>,
    pub serving: InferenceService,
    pub settings: Arc<Settings>,
    pub dataset_settings: Arc<dataset::Limits>,
    pub artifact_settings: artifact::ImportLimits,
    pub adapter_imports: Arc<AdapterImports>,
    pub webhooks: Arc<WebhookSettings>,
    pub access: Arc<Access>,
    pub access_sync: AccessSync,
    pub usage: Arc<UsageCounters>,
    /// Cancelled when the server shuts down: the readiness check fails and event streams end.
    pub shutdown: CancellationToken,
    /// Content of `GET /openapi.yaml`.
    pub openapi_yaml: Arc<str>,
    pub metrics: Arc<Metrics>,
    pub job_metrics: Arc<JobMetrics>,
    pub concurrency: Arc<ConcurrencyLimits>,
}

/// Where adapters are imported from, beside uploads.
#[derive(Debug, Clone)]
pub struct AdapterImports {
    /// Folder below which paths are read; without it no path is read.
    pub folder: Option<PathBuf>,
    pub hub: hub::Settings,
}

/// Limits on concurrent work of the API.
pub struct ConcurrencyLimits {
    /// Validations of datasets and uploaded adapters.
    pub validations: Arc<Semaphore>,
    /// Downloads of adapters.
    pub downloads: Arc<Semaphore>,
    /// Open event streams.
    pub event_streams: Arc<Semaphore>,
}

impl ConcurrencyLimits {
    pub fn new(settings: &Settings) -> Self {
        Self {
            validations: Arc::new(Semaphore::new(settings.max_concurrent_validations)),
            downloads: Arc::new(Semaphore::new(settings.max_concurrent_validations)),
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

const MIB: u64 = 1024 * 1024;

/// Limits and timeouts of the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Hosts that requests may name. By default only `localhost` and IP addresses.
    pub allowed_hosts: AllowedHosts,
    /// Maximum size of a JSON body in bytes, inline examples included. Default 16 MiB.
    pub max_json_bytes: usize,
    pub cors_origins: CorsOrigins,
    pub forwarded_for: ForwardedFor,
    /// Limits of owners that have none of their own.
    pub default_limits: OwnerLimits,
    /// Interval at which keys and owners are compared with the database, and usage is stored. Default 5 s.
    pub access_refresh_interval: Duration,
    /// Time until a browser that signed in has to sign in again. Default 12 h.
    pub session_lifetime: Duration,
    /// Refuses unknown fields of requests under `/v1`.
    pub strict_requests: bool,
    /// Memory of all JSON bodies larger than 64 KiB in bytes, at least `max_json_bytes`. Default 256 MiB.
    pub max_body_memory: usize,
    /// Maximum size of an uploaded dataset in bytes. Default 256 MiB.
    pub max_dataset_bytes: u64,
    /// Maximum size of an uploaded adapter zip in bytes. Default 1 GiB.
    pub max_adapter_bytes: u64,
    /// Minimum size of a response that is compressed, in bytes; `None` compresses none. Default 16 KiB.
    pub compress_from_bytes: Option<u64>,
    /// Maximum number of open connections. By default, what the limit on open files allows.
    pub max_connections: Option<usize>,
    pub connections: ConnectionSettings,
    /// Maximum time without data while a request body is received, and the time over which its rate is averaged. Default 30 s.
    pub body_idle_timeout: Duration,
    /// Minimum rate of a request body in bytes per second. Default 1 KiB/s.
    pub min_body_rate: u64,
    /// Maximum time to receive a whole request body. Default 1 h.
    pub body_total_timeout: Duration,
    /// Maximum time until a response starts, except for uploads and generation. Default 30 s.
    pub request_timeout: Duration,
    /// Maximum time until a response with generated text starts. Default 10 min.
    pub generation_timeout: Duration,
    /// Threads of a training job on this machine, for estimates of its time.
    pub training_threads: usize,
    /// Maximum number of queued jobs per owner. Default 1000.
    pub max_queued_jobs: u64,
    /// Maximum number of candidates of successive halving. Default 16.
    pub max_candidates: usize,
    /// Datasets and adapters validated at once, each held in memory, and adapters downloaded at once; others wait. Default 2.
    pub max_concurrent_validations: usize,
    /// How long the answer to an `Idempotency-Key` is kept. Default 24 h.
    pub idempotency_ttl: Duration,
    /// Maximum size of an answer that is kept, in bytes. Default 1 MiB.
    pub idempotency_max_response: u64,
    /// Maximum number of open event streams. Default 1000.
    pub max_event_streams: usize,
    /// Interval at which an event stream polls the store. Default 1 s.
    pub event_poll_interval: Duration,
    /// Interval of keep-alive comments in idle event streams. Default 15 s.
    pub sse_keep_alive_interval: Duration,
    /// Page size of lists without `limit`. Default 20.
    pub default_page_size: u32,
    /// Maximum page size of lists. Default 100.
    pub max_page_size: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allowed_hosts: AllowedHosts::Names(Vec::new()),
            max_json_bytes: 16 * MIB as usize,
            cors_origins: CorsOrigins::None,
            forwarded_for: ForwardedFor::Ignore,
            default_limits: OwnerLimits::default(),
            access_refresh_interval: Duration::from_secs(5),
            session_lifetime: Duration::from_secs(12 * 3600),
            strict_requests: false,
            max_body_memory: 256 * MIB as usize,
            max_dataset_bytes: 256 * MIB,
            max_adapter_bytes: 1024 * MIB,
            compress_from_bytes: Some(16 * 1024),
            max_connections: None,
            connections: ConnectionSettings::default(),
            min_body_rate: 1024,
            body_idle_timeout: Duration::from_secs(30),
            body_total_timeout: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(30),
            generation_timeout: Duration::from_secs(600),
            training_threads: 1,
            max_queued_jobs: 1000,
            max_candidates: 16,
            max_concurrent_validations: 2,
            idempotency_ttl: Duration::from_secs(24 * 3600),
            idempotency_max_response: MIB,
            max_event_streams: 1000,
            event_poll_interval: Duration::from_secs(1),
            sse_keep_alive_interval: Duration::from_secs(15),
            default_page_size: 20,
            max_page_size: 100,
        }
    }
}
