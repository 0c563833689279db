//! Every setting, read once from flags and environment; `espalier serve --help` is their reference.
//!
//! A room's `Settings` is filled here and nowhere else. Nothing else in the house reads the environment (`clippy.toml`).
//! Knows nothing of how a setting is used.

mod access;
mod base_model;
mod limits;
mod logging;
mod secret;
mod serving;
mod storage;
mod training;
mod units;

pub use access::AccessSettings;
pub use logging::{LogFlags, LogFormat};
pub use secret::Secret;
pub use training::Role;

use crate::{http, worker};
use clap::Args;
use espalier_core::error::Result;
use espalier_core::{artifact, dataset, model};
use espalier_tensor::{Device, WeightFormat};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The flags of `serve` and `doctor`.
#[derive(Clone, Args)]
pub struct Config {
    #[command(flatten)]
    base: base_model::Flags,
    #[command(flatten)]
    storage: storage::Flags,
    #[command(flatten)]
    access: access::Flags,
    #[command(flatten)]
    training: training::Flags,
    #[command(flatten)]
    serving: serving::Flags,
    #[command(flatten)]
    limits: limits::Flags,
    #[command(flatten)]
    pub logs: LogFlags,
}

/// What the rooms are started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A folder, a GGUF file or a hub id.
    pub model: String,
    pub hub: model::hub::Settings,
    pub device: Device,
    pub weight_format: WeightFormat,
    pub data_dir: PathBuf,
    pub database_url: Secret,
    pub listen: SocketAddr,
    /// The bearer keys that are let in; with none, everybody is.
    pub api_keys: Vec<Secret>,
    pub role: Role,
    pub worker: worker::Settings,
    pub serving: crate::serving::Settings,
    pub data: dataset::Limits,
    pub http: http::Settings,
    pub artifact: artifact::ImportLimits,
    /// For requests under way when the server stops.
    pub shutdown_timeout: Duration,
}

impl Config {
    /// Fills in what depends on the machine or on other settings, and reads the secrets' files.
    ///
    /// # Errors
    /// `Invalid` for settings that contradict each other and for a secret's file that cannot be read.
    pub fn resolve(&self) -> Result<Settings> {
        let access = self.access.resolve()?;
        let data = self.limits.data_settings();
        Ok(Settings {
            model: self.base.model_or_default(),
            hub: base_model::hub_settings(),
            device: self.base.device,
            weight_format: self.base.weight_format,
            data_dir: self.storage.data_dir.clone(),
            database_url: self.storage.resolve_database_url()?,
            listen: access.listen,
            api_keys: access.api_keys,
            role: self.training.role,
            worker: self.training.worker_settings(data.clone())?,
            serving: self.serving.resolve(),
            data,
            http: self.limits.http_settings()?,
            artifact: self.limits.artifact_settings(),
            shutdown_timeout: self.limits.shutdown_timeout,
        })
    }
}

/// The number of cores that this process may use.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
