//! Settings of limits and timeouts: sizes of requests, datasets and adapters, and times.

use super::units;
use crate::http;
use clap::Args;
use espalier_core::error::{Error, Result};
use espalier_core::{artifact, dataset};
use std::time::Duration;

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Limits")]
pub struct Flags {
    /// Maximum size of a dataset file
    #[arg(long = "max-dataset", env = "ESPALIER_MAX_DATASET", value_name = "BYTES", default_value = "256MiB", value_parser = units::parse_bytes)]
    pub max_dataset_bytes: u64,

    /// Maximum number of rows of a dataset
    #[arg(long = "max-rows", env = "ESPALIER_MAX_ROWS", value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_dataset_rows: u64,

    /// Maximum size of one record of a dataset
    #[arg(long = "max-record", env = "ESPALIER_MAX_RECORD", value_name = "BYTES", default_value = "1MiB", value_parser = units::parse_bytes_in_memory)]
    pub max_record_bytes: usize,

    /// Maximum number of distinct labels of a dataset
    #[arg(long, env = "ESPALIER_MAX_LABELS", value_name = "N", default_value = "10000", value_parser = units::parse_count)]
    pub max_labels: usize,

    /// Maximum size of a JSON request body, inline examples included
    #[arg(long = "max-json", env = "ESPALIER_MAX_JSON", value_name = "BYTES", default_value = "16MiB", value_parser = units::parse_bytes_in_memory)]
    pub max_json_bytes: usize,

    /// Memory for JSON request bodies larger than 64 KiB, from their arrival until the response starts; requests beyond it get 503 with
    /// Retry-After. At least --max-json
    #[arg(long, env = "ESPALIER_MAX_BODY_MEMORY", value_name = "BYTES", default_value = "256MiB", value_parser = units::parse_bytes_in_memory)]
    pub max_body_memory: usize,

    /// Maximum size of an uploaded adapter archive
    #[arg(long = "max-adapter", env = "ESPALIER_MAX_ADAPTER", value_name = "BYTES", default_value = "1GiB", value_parser = units::parse_bytes)]
    pub max_adapter_bytes: u64,

    /// Maximum number of files in an adapter archive or folder
    #[arg(long, env = "ESPALIER_MAX_ADAPTER_FILES", value_name = "N", default_value = "1000", value_parser = units::parse_count)]
    pub max_adapter_files: usize,

    /// Maximum size of each unpacked JSON file of an adapter
    #[arg(long = "max-adapter-json", env = "ESPALIER_MAX_ADAPTER_JSON", value_name = "BYTES", default_value = "64MiB", value_parser = units::parse_bytes)]
    pub max_adapter_json_bytes: u64,

    /// Maximum size of the unpacked tensors of an adapter; a .tar.gz may unpack to twice as much in all
    #[arg(long = "max-adapter-tensors", env = "ESPALIER_MAX_ADAPTER_TENSORS", value_name = "BYTES", default_value = "512MiB", value_parser = units::parse_bytes)]
    pub max_adapter_tensor_bytes: u64,

    /// Minimum size of a response that is compressed (gzip or zstd) for clients that accept it; off compresses none
    #[arg(long, env = "ESPALIER_COMPRESS_FROM", value_name = "BYTES", default_value = "16KiB", value_parser = units::parse_compression_size)]
    pub compress_from: units::CompressionSize,

    /// Maximum number of open connections. Beyond it the connection that has been idle longest is closed; if all are busy, a new one
    /// gets 503 [default: half of the limit on open files less 256, at most 10000]
    #[arg(long, env = "ESPALIER_MAX_CONNECTIONS", value_name = "N", value_parser = units::parse_count)]
    pub max_connections: Option<usize>,

    /// Maximum time between the requests on a connection; longer than the idle timeout of a load balancer in front
    #[arg(long, env = "ESPALIER_KEEP_ALIVE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = units::parse_duration)]
    pub keep_alive_timeout: Duration,

    /// Maximum time to receive the headers of a request
    #[arg(long, env = "ESPALIER_HEADER_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = units::parse_duration)]
    pub header_timeout: Duration,

    /// Maximum size of a request's line and headers (414 or 431 beyond it)
    #[arg(long = "max-headers", env = "ESPALIER_MAX_HEADERS", value_name = "BYTES", default_value = "64KiB", value_parser = units::parse_bytes_in_memory)]
    pub max_head_bytes: usize,

    /// Maximum number of requests at once on an HTTP/2 connection
    #[arg(long, env = "ESPALIER_MAX_HTTP2_STREAMS", value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_http2_streams: u32,

    /// Maximum time in which a client takes no byte of its response
    #[arg(long, env = "ESPALIER_WRITE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = units::parse_duration)]
    pub write_timeout: Duration,

    /// Minimum rate of a request body per second, averaged over --read-timeout (408 below it)
    #[arg(long, env = "ESPALIER_MIN_BODY_RATE", value_name = "BYTES", default_value = "1KiB", value_parser = units::parse_bytes)]
    pub min_body_rate: u64,

    /// Maximum time without data while a request body is received
    #[arg(long, env = "ESPALIER_READ_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = units::parse_duration)]
    pub read_timeout: Duration,

    /// Maximum time to receive a whole request body
    #[arg(long = "max-upload-time", env = "ESPALIER_MAX_UPLOAD_TIME", value_name = "TIME", default_value = "1h", value_parser = units::parse_duration)]
    pub body_timeout: Duration,

    /// Maximum time until a response starts, except for uploads and generation (503 after it)
    #[arg(long, env = "ESPALIER_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = units::parse_duration)]
    pub request_timeout: Duration,

    /// Maximum time until a response with generated text starts; streamed responses start at once
    #[arg(long, env = "ESPALIER_GENERATION_TIMEOUT", value_name = "TIME", default_value = "10m", value_parser = units::parse_duration)]
    pub generation_timeout: Duration,

    /// Maximum time of a shutdown. Requests in flight finish within it; those still generating 0.5 s before its end get the error
    /// shutting_down. Raise it for long generations, together with the time after which the process manager kills
    #[arg(long, env = "ESPALIER_SHUTDOWN_TIMEOUT", value_name = "TIME", default_value = "8s", value_parser = units::parse_duration)]
    pub shutdown_timeout: Duration,

    /// Maximum number of queued jobs (503 beyond it)
    #[arg(long, env = "ESPALIER_MAX_QUEUED_JOBS", value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_queued_jobs: u64,

    /// Maximum number of candidates of successive halving (method auto)
    #[arg(long, env = "ESPALIER_MAX_CANDIDATES", value_name = "N", default_value = "16", value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub max_candidates: u64,

    /// Number of datasets and adapters validated at once, each held in memory; others wait
    #[arg(long, env = "ESPALIER_MAX_CONCURRENT_CHECKS", value_name = "N", default_value = "2", value_parser = units::parse_count)]
    pub max_concurrent_checks: usize,

    /// How long the answer to a request with an Idempotency-Key is kept
    #[arg(long, env = "ESPALIER_IDEMPOTENCY_TTL", value_name = "TIME", default_value = "24h", value_parser = units::parse_duration)]
    pub idempotency_ttl: Duration,

    /// Maximum size of an answer that is kept for an Idempotency-Key; a repeated request with a larger one gets 409 with its location
    #[arg(long, env = "ESPALIER_IDEMPOTENCY_MAX_RESPONSE", value_name = "BYTES", default_value = "1MiB", value_parser = units::parse_bytes)]
    pub idempotency_max_response: u64,

    /// Maximum number of open event streams (503 beyond it)
    #[arg(long, env = "ESPALIER_MAX_EVENT_STREAMS", value_name = "N", default_value = "1000", value_parser = units::parse_count)]
    pub max_event_streams: usize,

    /// Interval at which event streams poll the database
    #[arg(long, env = "ESPALIER_EVENT_POLL_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub event_poll_interval: Duration,

    /// Interval of keep-alive comments in idle event streams (SSE)
    #[arg(long, env = "ESPALIER_SSE_KEEP_ALIVE", value_name = "TIME", default_value = "15s", value_parser = units::parse_duration)]
    pub sse_keep_alive: Duration,

    /// Page size of lists if a request has no limit
    #[arg(long, env = "ESPALIER_DEFAULT_PAGE_SIZE", value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub default_page_size: u32,

    /// Maximum page size of lists
    #[arg(long, env = "ESPALIER_MAX_PAGE_SIZE", value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_page_size: u32,
}

impl Flags {
    /// # Errors
    /// `Invalid` if the default page size exceeds the maximum.
    pub fn http_settings(&self) -> Result<http::Settings> {
        if self.default_page_size > self.max_page_size {
            let detail = format!(
                "--default-page-size {} is more than --max-page-size {}: make it smaller",
                self.default_page_size, self.max_page_size
            );
            return Err(Error::invalid("conflicting_settings", detail));
        }
        Ok(http::Settings {
            max_json_bytes: self.max_json_bytes,
            max_body_memory: self.max_body_memory,
            max_dataset_bytes: self.max_dataset_bytes,
            max_adapter_bytes: self.max_adapter_bytes,
            compress_from_bytes: self.compress_from.0,
            max_connections: self.max_connections,
            connections: http::ConnectionSettings {
                keep_alive_timeout: self.keep_alive_timeout,
                header_timeout: self.header_timeout,
                write_timeout: self.write_timeout,
                max_head_bytes: self.max_head_bytes,
                max_http2_streams: self.max_http2_streams,
            },
            min_body_rate: self.min_body_rate,
            body_idle_timeout: self.read_timeout,
            body_total_timeout: self.body_timeout,
            request_timeout: self.request_timeout,
            generation_timeout: self.generation_timeout,
            max_queued_jobs: self.max_queued_jobs,
            max_candidates: usize::try_from(self.max_candidates).unwrap_or(usize::MAX),
            max_concurrent_validations: self.max_concurrent_checks,
            idempotency_ttl: self.idempotency_ttl,
            idempotency_max_response: self.idempotency_max_response,
            max_event_streams: self.max_event_streams,
            event_poll_interval: self.event_poll_interval,
            sse_keep_alive_interval: self.sse_keep_alive,
            default_page_size: self.default_page_size,
            max_page_size: self.max_page_size,
            ..http::Settings::default()
        })
    }

    pub fn artifact_settings(&self) -> artifact::ImportLimits {
        artifact::ImportLimits {
            max_entries: self.max_adapter_files,
            max_json_bytes: self.max_adapter_json_bytes,
            max_tensor_bytes: self.max_adapter_tensor_bytes,
        }
    }

    pub fn data_settings(&self) -> dataset::Limits {
        dataset::Limits {
            max_bytes: self.max_dataset_bytes,
            max_rows: self.max_dataset_rows,
            max_record_bytes: self.max_record_bytes,
            max_labels: self.max_labels,
        }
    }
}
