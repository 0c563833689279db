//! Limits and timeouts of the public API, filled by `config`.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// Limits and timeouts of the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Maximum size of a JSON body in bytes, inline examples included. Default 16 MiB.
    pub max_json_bytes: usize,
    /// Maximum size of an uploaded dataset in bytes. Default 256 MiB.
    pub max_dataset_bytes: u64,
    /// Maximum size of an uploaded adapter zip in bytes. Default 1 GiB.
    pub max_adapter_bytes: u64,
    /// Maximum time without data while a request body is received. Default 30 s.
    pub body_idle_timeout: Duration,
    /// Maximum time to receive a whole request body. Default 1 h.
    pub body_total_timeout: Duration,
    /// Maximum time until a response starts, except for uploads and generation. Default 30 s.
    pub request_timeout: Duration,
    /// Maximum time until a response with generated text starts. Default 10 min.
    pub generation_timeout: Duration,
    /// Maximum number of queued jobs per owner. Default 1000.
    pub max_queued_jobs: u64,
    /// Maximum number of candidates of successive halving. Default 16.
    pub max_candidates: usize,
    /// Datasets and adapters validated at once, each held in memory; others wait. Default 2.
    pub max_concurrent_validations: usize,
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
            max_json_bytes: 16 * MIB as usize,
            max_dataset_bytes: 256 * MIB,
            max_adapter_bytes: 1024 * MIB,
            body_idle_timeout: Duration::from_secs(30),
            body_total_timeout: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(30),
            generation_timeout: Duration::from_secs(600),
            max_queued_jobs: 1000,
            max_candidates: 16,
            max_concurrent_validations: 2,
            max_event_streams: 1000,
            event_poll_interval: Duration::from_secs(1),
            sse_keep_alive_interval: Duration::from_secs(15),
            default_page_size: 20,
            max_page_size: 100,
        }
    }
}
