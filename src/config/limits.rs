//! What is accepted: sizes of requests and datasets, and times.

use super::values;
use crate::http;
use clap::Args;
use espalier_core::error::{Error, Result};
use espalier_core::{artifact, data};
use std::time::Duration;

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Limits")]
pub struct Flags {
    /// Size of a dataset
    #[arg(long, env = "ESPALIER_MAX_DATASET", value_name = "BYTES", default_value = "256MiB", value_parser = values::bytes)]
    pub max_dataset: u64,

    /// Rows of a dataset
    #[arg(long, env = "ESPALIER_MAX_ROWS", value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_rows: u64,

    /// Size of one record of a dataset
    #[arg(long, env = "ESPALIER_MAX_RECORD", value_name = "BYTES", default_value = "1MiB", value_parser = small_bytes)]
    pub max_record: usize,

    /// Labels of a dataset
    #[arg(long, env = "ESPALIER_MAX_LABELS", value_name = "N", default_value = "10000", value_parser = count)]
    pub max_labels: usize,

    /// Size of a JSON request, inline examples included
    #[arg(long, env = "ESPALIER_MAX_JSON", value_name = "BYTES", default_value = "16MiB", value_parser = small_bytes)]
    pub max_json: usize,

    /// Size of an uploaded adapter
    #[arg(long, env = "ESPALIER_MAX_ADAPTER", value_name = "BYTES", default_value = "1GiB", value_parser = values::bytes)]
    pub max_adapter: u64,

    /// Files in an uploaded adapter
    #[arg(long, env = "ESPALIER_MAX_ADAPTER_FILES", value_name = "N", default_value = "1000", value_parser = count)]
    pub max_adapter_files: usize,

    /// Size of each of an uploaded adapter's JSON files, unpacked
    #[arg(long, env = "ESPALIER_MAX_ADAPTER_JSON", value_name = "BYTES", default_value = "64MiB", value_parser = values::bytes)]
    pub max_adapter_json: u64,

    /// Size of an uploaded adapter's tensors, unpacked
    #[arg(long, env = "ESPALIER_MAX_ADAPTER_TENSORS", value_name = "BYTES", default_value = "512MiB", value_parser = values::bytes)]
    pub max_adapter_tensors: u64,

    /// How long a client may send nothing while its request is read
    #[arg(long, env = "ESPALIER_IDLE", value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub idle: Duration,

    /// How long a whole request may take to arrive
    #[arg(long, env = "ESPALIER_MAX_UPLOAD_TIME", value_name = "TIME", default_value = "1h", value_parser = values::duration)]
    pub max_upload_time: Duration,

    /// How long an answer may take; uploads, downloads and event streams are not counted
    #[arg(long, env = "ESPALIER_DEADLINE", value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub deadline: Duration,

    /// How long an answer of generated text may take; one that is streamed begins at once
    #[arg(long, env = "ESPALIER_GENERATION_DEADLINE", value_name = "TIME", default_value = "10m", value_parser = values::duration)]
    pub generation_deadline: Duration,

    /// How long requests may take to finish when the server stops
    #[arg(long, env = "ESPALIER_GRACE", value_name = "TIME", default_value = "8s", value_parser = values::duration)]
    pub grace: Duration,

    /// Jobs that may be queued
    #[arg(long, env = "ESPALIER_MAX_QUEUED", value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_queued: u64,

    /// Candidates of a race
    #[arg(long, env = "ESPALIER_MAX_CANDIDATES", value_name = "N", default_value = "16", value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub max_candidates: u64,

    /// Uploads checked at once; each is held in memory meanwhile
    #[arg(long, env = "ESPALIER_MAX_CHECKS", value_name = "N", default_value = "2", value_parser = count)]
    pub max_checks: usize,

    /// Event streams open at once
    #[arg(long, env = "ESPALIER_MAX_STREAMS", value_name = "N", default_value = "1000", value_parser = count)]
    pub max_streams: usize,

    /// How often an event stream looks for news
    #[arg(long, env = "ESPALIER_STREAM_POLL", value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    pub stream_poll: Duration,

    /// How often a silent event stream says that it is alive
    #[arg(long, env = "ESPALIER_KEEP_ALIVE", value_name = "TIME", default_value = "15s", value_parser = values::duration)]
    pub keep_alive: Duration,

    /// Rows of a list where a request does not say how many
    #[arg(long, env = "ESPALIER_PAGE", value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub page: u32,

    /// Rows of a list at most
    #[arg(long, env = "ESPALIER_MAX_PAGE", value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_page: u32,
}

impl Flags {
    /// # Errors
    /// `Invalid` where the usual page would be larger than the largest.
    pub fn http(&self) -> Result<http::Settings> {
        if self.page > self.max_page {
            let detail = format!("--page {} is more than --max-page {}: make it smaller", self.page, self.max_page);
            return Err(Error::invalid("conflicting_settings", detail));
        }
        Ok(http::Settings {
            max_json_bytes: self.max_json,
            max_dataset_bytes: self.max_dataset,
            max_adapter_bytes: self.max_adapter,
            idle: self.idle,
            max_body_time: self.max_upload_time,
            deadline: self.deadline,
            generation_deadline: self.generation_deadline,
            max_queued: self.max_queued,
            max_candidates: usize::try_from(self.max_candidates).unwrap_or(usize::MAX),
            max_checks: self.max_checks,
            max_streams: self.max_streams,
            stream_poll: self.stream_poll,
            keep_alive: self.keep_alive,
            page: self.page,
            max_page: self.max_page,
        })
    }

    pub fn artifact(&self) -> artifact::Settings {
        artifact::Settings {
            max_entries: self.max_adapter_files,
            max_json_bytes: self.max_adapter_json,
            max_tensor_bytes: self.max_adapter_tensors,
        }
    }

    pub fn data(&self) -> data::Settings {
        data::Settings {
            max_bytes: self.max_dataset,
            max_rows: self.max_rows,
            max_record_bytes: self.max_record,
            max_labels: self.max_labels,
        }
    }
}

/// A number of things of which there must be one.
pub fn count(text: &str) -> std::result::Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("give a whole number from 1".to_string()),
        Ok(count) => Ok(count),
    }
}

/// Bytes of something that is held in memory at once.
pub fn small_bytes(text: &str) -> std::result::Result<usize, String> {
    usize::try_from(values::bytes(text)?).map_err(|_| "that is more than this machine can address".to_string())
}
