//! Every limit of the public API, with its default.
//!
//! Knows nothing of flags or environment variables: `config` fills it. What a dataset may hold is `dataset::Settings`,
//! what a batch of predictions may hold is `serving::Settings`.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of a JSON body, inline examples included. Default 16 MiB.
    pub max_json_bytes: usize,
    /// Bytes of an uploaded dataset file. Default 256 MiB.
    pub max_dataset_bytes: u64,
    /// Bytes of an uploaded adapter's zip. Default 1 GiB.
    pub max_adapter_bytes: u64,
    /// How long a client may send nothing while its body is read. Default 30 s.
    pub body_idle_timeout: Duration,
    /// How long a whole body may take to arrive. Default 1 h.
    pub body_total_timeout: Duration,
    /// How long an answer may take; uploads, and the bodies of downloads and event streams, are not counted.
    /// Default 30 s.
    pub request_timeout: Duration,
    /// The same of an answer that is generated text; one that is streamed begins at once. Default 10 min.
    pub generation_timeout: Duration,
    /// Queued jobs of one owner. Default 1000.
    pub max_queued_jobs: u64,
    /// Candidates of a race. Default 16.
    pub max_candidates: usize,
    /// Datasets and adapters checked at once, because each is held in memory meanwhile; others wait. Default 2.
    pub max_concurrent_validations: usize,
    /// Event streams open at once. Default 1000.
    pub max_event_streams: usize,
    /// How often an event stream looks for news. Default 1 s.
    pub event_poll_interval: Duration,
    /// How often a silent event stream says that it is alive. Default 15 s.
    pub sse_keep_alive_interval: Duration,
    /// Rows of a list where `limit` is left out. Default 20.
    pub default_page_size: u32,
    /// Rows of a list at most. Default 100.
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
