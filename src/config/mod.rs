//! Every setting, read once from flags and environment; `espalier serve --help` is their reference.
//!
//! A room's `Settings` is filled here and nowhere else. Nothing else in the house reads the environment (`clippy.toml`).
//! Knows nothing of how a setting is used.

mod access;
mod base;
mod limits;
mod logs;
mod secret;
mod serving;
mod storage;
mod training;
mod values;

pub use access::Access;
pub use base::BaseModel;
pub use logs::{Format, Logs};
pub use secret::Secret;
pub use training::Role;

use crate::error::Result;
use crate::{data, model, worker};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The flags of `serve` and `doctor`.
#[derive(Clone, Args)]
pub struct Config {
    #[command(flatten)]
    base: base::Flags,
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
    pub logs: Logs,
}

/// What the rooms are started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A folder or a hub id.
    pub model: String,
    pub hub: model::hub::Settings,
    pub data_dir: PathBuf,
    pub database_url: Secret,
    pub listen: SocketAddr,
    /// The bearer keys that are let in; with none, everybody is.
    pub keys: Vec<Secret>,
    pub role: Role,
    pub worker: worker::Settings,
    pub serving: crate::serving::Settings,
    pub data: data::Settings,
}

impl Config {
    /// Fills in what depends on the machine or on other settings, and reads the secrets' files.
    ///
    /// # Errors
    /// `Invalid` for settings that contradict each other and for a secret's file that cannot be read.
    pub fn settings(&self) -> Result<Settings> {
        let base = self.base.resolve(&self.storage.data_dir);
        let access = self.access.resolve()?;
        let data = self.limits.data();
        Ok(Settings {
            model: base.model,
            hub: base.hub,
            data_dir: self.storage.data_dir.clone(),
            database_url: self.storage.database_url()?,
            listen: access.listen,
            keys: access.keys,
            role: self.training.role,
            worker: self.training.worker(data.clone())?,
            serving: self.serving.resolve(),
            data,
        })
    }
}

/// The number of cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
