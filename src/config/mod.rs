//! Settings of the server from flags and environment variables; `espalier serve --help` lists them.
//!
//! This module fills the `Settings` of every other module. No other module reads the environment (`clippy.toml` enforces it).

mod access;
mod base_model;
mod jwt;
mod limits;
mod quotas;
mod serving;
mod storage;
mod telemetry;
mod training;
mod units;
mod webhooks;

pub use access::{AccessSettings, Secret};
pub use storage::Flags as StorageFlags;
pub use training::Role;
pub use units::{available_cores, parse_duration};

use crate::store::blobs::ObjectStorage;
use crate::{http, store, worker};
use clap::{Args, ValueEnum};
use espalier_core::error::Result;
use espalier_core::{artifact, dataset, model};
use espalier_tensor::{Device, WeightFormat};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `serve` and `doctor`.
#[derive(Clone, Args)]
pub struct Config {
    #[command(flatten)]
    base: base_model::Flags,
    #[command(flatten)]
    storage: storage::Flags,
    #[command(flatten)]
    access: access::Flags,
    #[command(flatten)]
    jwt: jwt::Flags,
    #[command(flatten)]
    webhooks: webhooks::Flags,
    #[command(flatten)]
    training: training::Flags,
    #[command(flatten)]
    serving: serving::Flags,
    #[command(flatten)]
    limits: limits::Flags,
    #[command(flatten)]
    quotas: quotas::Flags,
    #[command(flatten)]
    pub telemetry: telemetry::Flags,
    #[command(flatten)]
    pub logs: LogFlags,
}

/// Format of the server's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Log")]
pub struct LogFlags {
    /// Format of the log
    #[arg(long, env = "ESPALIER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Log level: error, warn, info, debug or trace, or a filter per module (`info,espalier::worker=debug`)
    #[arg(long, env = "ESPALIER_LOG", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Resolved settings of the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder, GGUF file or Hugging Face Hub id.
    pub model: String,
    pub hub: model::hub::Settings,
    /// Folder of adapters that may be imported by their path.
    pub import_folder: Option<PathBuf>,
    pub device: Device,
    pub weight_format: WeightFormat,
    pub data_dir: PathBuf,
    pub object_storage: Option<ObjectStorage>,
    pub blob_cache_bytes: u64,
    pub database_url: Secret,
    pub retention: store::RetentionPolicy,
    /// Interval at which the retention policy is applied.
    pub retention_interval: Duration,
    pub listen: SocketAddr,
    /// Accepted bearer keys; without keys every request is accepted.
    pub api_keys: Vec<Secret>,
    /// Accepted keys of administrators.
    pub admin_keys: Vec<Secret>,
    /// Bearer tokens of an OpenID Connect provider.
    pub jwt: Option<http::JwtSettings>,
    pub webhooks: worker::webhooks::WebhookSettings,
    pub role: Role,
    pub worker: worker::Settings,
    pub serving: crate::serving::Settings,
    pub data: dataset::Limits,
    pub http: http::Settings,
    pub artifact: artifact::ImportLimits,
    /// Maximum time of a shutdown, in which requests in flight may finish.
    pub shutdown_timeout: Duration,
}

impl Config {
    /// Resolves defaults that depend on the machine or other settings, and reads secret files.
    ///
    /// # Errors
    /// `Invalid` for contradictory settings and for a secret file that cannot be read.
    pub fn resolve(&self) -> Result<Settings> {
        let jwt = self.jwt.resolve()?;
        let access = self.access.resolve(jwt.as_ref())?;
        let data = self.limits.data_settings();
        Ok(Settings {
            model: self.base.model_or_default(),
            hub: base_model::hub_settings(),
            import_folder: self.storage.import_folder()?,
            device: self.base.device,
            weight_format: self.base.weight_format,
            data_dir: self.storage.data_dir.clone(),
            object_storage: self.storage.object_storage()?,
            blob_cache_bytes: self.storage.blob_cache_size,
            database_url: self.storage.resolve_database_url()?,
            retention: self.storage.retention_policy(),
            retention_interval: self.storage.retention_interval,
            listen: access.listen,
            api_keys: access.api_keys,
            admin_keys: access.admin_keys,
            jwt,
            webhooks: self.webhooks.resolve()?,
            role: self.training.role,
            worker: worker::Settings {
                max_running_per_owner: self.quotas.owner_limits().running_jobs,
                ..self.training.worker_settings(data.clone())?
            },
            serving: self.serving.resolve(self.base.device),
            data,
            http: http::Settings {
                allowed_hosts: access.allowed_hosts,
                cors_origins: access.cors_origins,
                forwarded_for: access.forwarded_for,
                access_refresh_interval: access.access_refresh_interval,
                default_limits: self.quotas.owner_limits(),
                session_lifetime: access.session_lifetime,
                strict_requests: access.strict_requests,
                ..self.limits.http_settings()?
            },
            artifact: self.limits.artifact_settings(),
            shutdown_timeout: self.limits.shutdown_timeout,
        })
    }
}

#[cfg(test)]
mod tests;
