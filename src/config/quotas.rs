//! Settings of the limits of owners that have none of their own (`PUT /owners/{owner}`).

use super::units;
use crate::store::OwnerLimits;
use clap::Args;
use clap::value_parser;

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Limits per owner")]
pub struct Flags {
    /// Requests other than GET that an owner may send in a minute, for each process [default: no limit]
    #[arg(long, env = "ESPALIER_OWNER_REQUESTS_PER_MINUTE", value_name = "NUMBER", value_parser = value_parser!(u32).range(1..))]
    owner_requests_per_minute: Option<u32>,

    /// Tokens of inputs and of generated text that an owner may use in a minute, for each process; a request is admitted while some are
    /// left [default: no limit]
    #[arg(long, env = "ESPALIER_OWNER_TOKENS_PER_MINUTE", value_name = "NUMBER", value_parser = value_parser!(u32).range(1..))]
    owner_tokens_per_minute: Option<u32>,

    /// Requests of an owner at the same time, event streams included, for each process [default: no limit]
    #[arg(long, env = "ESPALIER_OWNER_CONCURRENT_REQUESTS", value_name = "NUMBER", value_parser = value_parser!(u32).range(1..))]
    owner_concurrent_requests: Option<u32>,

    /// Queued jobs of an owner [default: that of --max-queued-jobs]
    #[arg(long, env = "ESPALIER_OWNER_QUEUED_JOBS", value_name = "NUMBER")]
    owner_queued_jobs: Option<u64>,

    /// Jobs of an owner that run at the same time [default: no limit]
    #[arg(long, env = "ESPALIER_OWNER_RUNNING_JOBS", value_name = "NUMBER", value_parser = value_parser!(u64).range(1..))]
    owner_running_jobs: Option<u64>,

    /// Size of all datasets of an owner [default: no limit]
    #[arg(long, env = "ESPALIER_OWNER_DATASET_BYTES", value_name = "SIZE", value_parser = units::parse_bytes)]
    owner_dataset_bytes: Option<u64>,

    /// Rows of all datasets of an owner [default: no limit]
    #[arg(long, env = "ESPALIER_OWNER_DATASET_ROWS", value_name = "NUMBER")]
    owner_dataset_rows: Option<u64>,

    /// Size of all adapters of an owner; trained adapters are published beyond it, and no more jobs accepted [default: no limit]
    #[arg(long, env = "ESPALIER_OWNER_ADAPTER_BYTES", value_name = "SIZE", value_parser = units::parse_bytes)]
    owner_adapter_bytes: Option<u64>,
}

impl Flags {
    pub fn owner_limits(&self) -> OwnerLimits {
        OwnerLimits {
            requests_per_minute: self.owner_requests_per_minute,
            tokens_per_minute: self.owner_tokens_per_minute,
            concurrent_requests: self.owner_concurrent_requests,
            queued_jobs: self.owner_queued_jobs,
            running_jobs: self.owner_running_jobs,
            dataset_bytes: self.owner_dataset_bytes,
            dataset_rows: self.owner_dataset_rows,
            adapter_bytes: self.owner_adapter_bytes,
        }
    }
}
