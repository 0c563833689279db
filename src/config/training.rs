//! Which part of the work this process does, and how it trains.

use super::{available_cores, units};
use crate::worker;
use clap::{Args, ValueEnum};
use espalier_core::error::{Error, Result};
use espalier_core::{dataset, training};
use std::time::Duration;

/// Which part of the work a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers requests and trains
    All,
    /// Answers requests; jobs wait for a worker on the same database
    Api,
    /// Trains; answers health and metrics only
    Worker,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }
}

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Training")]
pub struct Flags {
    /// Part of the work that this process does
    #[arg(long, env = "ESPALIER_ROLE", value_enum, default_value_t = Role::All)]
    pub role: Role,

    /// Jobs trained at once
    #[arg(long = "slots", env = "ESPALIER_SLOTS", value_name = "N", default_value = "1", value_parser = super::limits::parse_count)]
    pub worker_slots: usize,

    /// Threads that one job trains on, at the lowest priority [default: one per core]
    #[arg(long, env = "ESPALIER_TRAINING_THREADS", value_name = "N", value_parser = super::limits::parse_count)]
    pub training_threads: Option<usize>,

    /// Time between checkpoints: what a killed server has to repeat at most
    #[arg(long, env = "ESPALIER_CHECKPOINT_INTERVAL", value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub checkpoint_interval: Duration,

    /// Disk for what the frozen base computed of datasets, to be read in later epochs and jobs
    #[arg(long, env = "ESPALIER_FEATURE_CACHE_SIZE", value_name = "SIZE", default_value = "4GiB", value_parser = units::parse_bytes)]
    pub feature_cache_size: u64,

    /// Memory for what a job remembers of its way back, about; layers beyond it are computed again, with the same result, in a
    /// quarter more time
    #[arg(long, env = "ESPALIER_ACTIVATION_MEMORY", value_name = "SIZE", default_value = "4GiB", value_parser = units::parse_bytes)]
    pub activation_memory: u64,

    /// How long a job stays with a worker that is not heard of
    #[arg(long, env = "ESPALIER_LEASE_DURATION", value_name = "TIME", default_value = "30s", value_parser = units::parse_duration)]
    pub lease_duration: Duration,

    /// How often a worker says that it is alive and learns of cancel and pause
    #[arg(long, env = "ESPALIER_HEARTBEAT_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = units::parse_duration)]
    pub heartbeat_interval: Duration,

    /// How often an idle worker looks for jobs that another process queued
    #[arg(long, env = "ESPALIER_POLL_INTERVAL", value_name = "TIME", default_value = "2s", value_parser = units::parse_duration)]
    pub poll_interval: Duration,

    /// Attempts in a row without a new checkpoint after which a job fails
    #[arg(long, env = "ESPALIER_MAX_ATTEMPTS", value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,
}

impl Flags {
    /// # Errors
    /// `Invalid` where the heartbeat would come too late for the lease.
    pub fn worker_settings(&self, data: dataset::Limits) -> Result<worker::Settings> {
        if self.heartbeat_interval * 2 > self.lease_duration {
            return Err(Error::invalid(
                "conflicting_settings",
                format!(
                    "a lease of {:?} with a heartbeat every {:?} would be lost to one late heartbeat: make --lease-duration at \
                     least twice --heartbeat-interval",
                    self.lease_duration, self.heartbeat_interval
                ),
            ));
        }
        Ok(worker::Settings {
            slots: self.worker_slots,
            lease_duration: self.lease_duration,
            heartbeat_interval: self.heartbeat_interval,
            poll_interval: self.poll_interval,
            max_attempts: self.max_attempts,
            training: training::Settings {
                threads: self.training_threads.unwrap_or_else(available_cores),
                checkpoint_interval: self.checkpoint_interval,
                feature_cache_bytes: self.feature_cache_size,
                activation_memory_bytes: self.activation_memory,
            },
            data,
        })
    }
}
