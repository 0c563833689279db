//! What is accepted: sizes of requests and datasets, and times.

use super::values;
use crate::data;
use clap::Args;

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
}

impl Flags {
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
pub fn count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("give a whole number from 1".to_string()),
        Ok(count) => Ok(count),
    }
}

/// Bytes of something that is held in memory at once.
pub fn small_bytes(text: &str) -> Result<usize, String> {
    usize::try_from(values::bytes(text)?).map_err(|_| "that is more than this machine can address".to_string())
}
