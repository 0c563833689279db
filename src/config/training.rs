//! Settings of the process's role and of training.

use super::units::{self, available_cores};
use crate::worker;
use clap::{Args, ValueEnum};
use espalier_core::error::{Error, Result};
use espalier_core::{dataset, training};
use std::time::Duration;

/// Role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Serve the API and train
    All,
    /// Serve the API; jobs are trained by workers on the same database
    Api,
    /// Train; serve only health checks and metrics
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
    /// Role of this process
    #[arg(long, env = "ESPALIER_ROLE", value_enum, default_value_t = Role::All)]
    pub role: Role,

    /// Number of jobs trained at once
    #[arg(long = "slots", env = "ESPALIER_SLOTS", value_name = "N", default_value = "1", value_parser = units::parse_count)]
    pub worker_slots: usize,

    /// Number of training threads per job, at the lowest scheduling priority [default: one per core]
    #[arg(long, env = "ESPALIER_TRAINING_THREADS", value_name = "N", value_parser = units::parse_count)]
    pub training_threads: Option<usize>,

    /// Time between checkpoints; a crash loses at most this much training
    #[arg(long, env = "ESPALIER_CHECKPOINT_INTERVAL", value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub checkpoint_interval: Duration,

    /// Disk space for the cache of frozen features, reused by later epochs and jobs
    #[arg(long, env = "ESPALIER_FEATURE_CACHE_SIZE", value_name = "SIZE", default_value = "4GiB", value_parser = units::parse_bytes)]
    pub feature_cache_size: u64,

    /// Approximate memory for saved activations per job; layers beyond it use gradient checkpointing, which gives the same result in
    /// about 25 % more time
    #[arg(long, env = "ESPALIER_ACTIVATION_MEMORY", value_name = "SIZE", default_value = "4GiB", value_parser = units::parse_bytes)]
    pub activation_memory: u64,

    /// Lease of a job: time after the last heartbeat until another worker may claim it
    #[arg(long, env = "ESPALIER_LEASE_DURATION", value_name = "TIME", default_value = "30s", value_parser = units::parse_duration)]
    pub lease_duration: Duration,

    /// Interval at which a worker renews the lease and checks for cancel and pause requests
    #[arg(long, env = "ESPALIER_HEARTBEAT_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = units::parse_duration)]
    pub heartbeat_interval: Duration,

    /// A running job is preempted when its owner's recent slot time exceeds that of a waiting owner with fewer running jobs by this much,
    /// and by ten times the time from the claim of the job to its first step; it resumes from its checkpoint
    #[arg(long = "job-time-slice", env = "ESPALIER_JOB_TIME_SLICE", value_name = "TIME", default_value = "15s", value_parser = units::parse_duration)]
    pub time_slice: Duration,

    /// Interval at which a worker polls the database: for queued jobs when it is idle, for queued jobs of other owners when it is busy
    #[arg(long, env = "ESPALIER_POLL_INTERVAL", value_name = "TIME", default_value = "2s", value_parser = units::parse_duration)]
    pub poll_interval: Duration,

    /// A process with --role worker exits with the status 0 once none of its slots has had a job for this long, for schedulers that start
    /// workers while jobs are queued [default: none; it waits for jobs]
    #[arg(long, env = "ESPALIER_EXIT_WHEN_IDLE", value_name = "TIME", value_parser = units::parse_duration)]
    pub exit_when_idle: Option<Duration>,

    /// Number of consecutive attempts without a new checkpoint after which a job fails: attempts that end with their process, and
    /// attempts that end in an internal error, each counted by itself; a full disk and a lost database do not count
    #[arg(long, env = "ESPALIER_MAX_ATTEMPTS", value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,
}

impl Flags {
    /// # Errors
    /// `Invalid` if the lease is shorter than two heartbeats, or another role should exit when it is idle.
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
        if self.exit_when_idle.is_some() && self.role != Role::Worker {
            let detail = "--exit-when-idle is for workers: add --role worker, or leave it out";
            return Err(Error::invalid("conflicting_settings", detail));
        }
        Ok(worker::Settings {
            slots: self.worker_slots,
            lease_duration: self.lease_duration,
            heartbeat_interval: self.heartbeat_interval,
            poll_interval: self.poll_interval,
            exit_when_idle: self.exit_when_idle,
            max_attempts: self.max_attempts,
            time_slice: self.time_slice,
            max_running_per_owner: None,
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
