//! Every limit of the public API, with its default.
//!
//! Knows nothing of flags or environment variables: `config` fills it. What a dataset may hold is `data::Settings`,
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
    pub idle: Duration,
    /// How long a whole body may take to arrive. Default 1 h.
    pub max_body_time: Duration,
    /// How long an answer may take; uploads, and the bodies of downloads and event streams, are not counted.
    /// Default 30 s.
    pub deadline: Duration,
    /// The same of an answer that is generated text; one that is streamed begins at once. Default 10 min.
    pub generation_deadline: Duration,
    /// Queued jobs of one owner. Default 1000.
    pub max_queued: u64,
    /// Candidates of a race. Default 16.
    pub max_candidates: usize,
    /// Datasets and adapters checked at once, because each is held in memory meanwhile; others wait. Default 2.
    pub max_checks: usize,
    /// Event streams open at once. Default 1000.
    pub max_streams: usize,
    /// How often an event stream looks for news. Default 1 s.
    pub stream_poll: Duration,
    /// How often a silent event stream says that it is alive. Default 15 s.
    pub keep_alive: Duration,
    /// Rows of a list where `limit` is left out. Default 20.
    pub page: u32,
    /// Rows of a list at most. Default 100.
    pub max_page: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_json_bytes: 16 * MIB as usize,
            max_dataset_bytes: 256 * MIB,
            max_adapter_bytes: 1024 * MIB,
            idle: Duration::from_secs(30),
            max_body_time: Duration::from_secs(3600),
            deadline: Duration::from_secs(30),
            generation_deadline: Duration::from_secs(600),
            max_queued: 1000,
            max_candidates: 16,
            max_checks: 2,
            max_streams: 1000,
            stream_poll: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
            page: 20,
            max_page: 100,
        }
    }
}
