//! Which part of the work this process does, and how it trains.

use super::{cores, values};
use crate::worker;
use clap::{Args, ValueEnum};
use espalier_core::error::{Error, Result};
use espalier_core::{data, training};
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
    pub fn name(self) -> &'static str {
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
    #[arg(long, env = "ESPALIER_SLOTS", value_name = "N", default_value = "1", value_parser = super::limits::count)]
    pub slots: usize,

    /// Threads that one job trains on, at the lowest priority [default: one per core]
    #[arg(long, env = "ESPALIER_TRAINING_THREADS", value_name = "N", value_parser = super::limits::count)]
    pub training_threads: Option<usize>,

    /// Time between checkpoints: what a killed server has to repeat at most
    #[arg(long, env = "ESPALIER_CHECKPOINT_EVERY", value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    pub checkpoint_every: Duration,

    /// Disk for what the frozen base computed of datasets, to be read in later epochs and jobs
    #[arg(long, env = "ESPALIER_REMEMBERED", value_name = "SIZE", default_value = "4GiB", value_parser = values::bytes)]
    pub remembered: u64,

    /// Memory for what a job remembers of its way back, about; layers beyond it are computed again, with the same result, in a
    /// quarter more time
    #[arg(long, env = "ESPALIER_ACTIVATION_MEMORY", value_name = "SIZE", default_value = "4GiB", value_parser = values::bytes)]
    pub activation_memory: u64,

    /// How long a job stays with a worker that is not heard of
    #[arg(long, env = "ESPALIER_LEASE", value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub lease: Duration,

    /// How often a worker says that it is alive and learns of cancel and pause
    #[arg(long, env = "ESPALIER_HEARTBEAT", value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    pub heartbeat: Duration,

    /// How often an idle worker looks for jobs that another process queued
    #[arg(long, env = "ESPALIER_POLL", value_name = "TIME", default_value = "2s", value_parser = values::duration)]
    pub poll: Duration,

    /// Attempts in a row without a new checkpoint after which a job fails
    #[arg(long, env = "ESPALIER_MAX_ATTEMPTS", value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,
}

impl Flags {
    /// # Errors
    /// `Invalid` where the heartbeat would come too late for the lease.
    pub fn worker(&self, data: data::Settings) -> Result<worker::Settings> {
        if self.heartbeat * 2 > self.lease {
            return Err(Error::invalid(
                "conflicting_settings",
                format!(
                    "a lease of {:?} with a heartbeat every {:?} would be lost to one late heartbeat: make --lease at \
                     least twice --heartbeat",
                    self.lease, self.heartbeat
                ),
            ));
        }
        Ok(worker::Settings {
            slots: self.slots,
            lease: self.lease,
            heartbeat: self.heartbeat,
            poll: self.poll,
            max_attempts: self.max_attempts,
            training: training::Settings {
                threads: self.training_threads.unwrap_or_else(cores),
                checkpoint_every: self.checkpoint_every,
                remembered_bytes: self.remembered,
                activation_bytes: self.activation_memory,
            },
            data,
        })
    }
}
