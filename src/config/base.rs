//! Which base model, and where the hub is. The `HF_…` variables mean what they mean to Hugging Face's own tools.

use crate::model::hub::{Network, Settings};
use clap::Args;
use std::path::{Path, PathBuf};

/// Where `make model` puts the default base model.
const DEFAULT_FOLDER: &str = "models/all-MiniLM-L6-v2";
const DEFAULT_ID: &str = "sentence-transformers/all-MiniLM-L6-v2";

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Base model")]
pub struct Flags {
    /// Base model: a folder, or a hub id (`org/name`, `org/name@revision`)
    ///
    /// By default the folder models/all-MiniLM-L6-v2 where it exists (`make model` makes it), else the hub's
    /// sentence-transformers/all-MiniLM-L6-v2.
    #[arg(long, env = "ESPALIER_MODEL", value_name = "FOLDER|ID")]
    pub model: Option<String>,

    /// Address of the hub that a missing model is downloaded from
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL", default_value = "https://huggingface.co")]
    pub hub_endpoint: String,

    /// Token for models that the hub gives to some only
    #[arg(long, env = "HF_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub hub_token: Option<String>,

    /// Never ask the hub: take models from folders and the cache alone
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub hub_offline: bool,

    /// Where downloaded models are kept [default: hub/ in --hub-home]
    #[arg(long, env = "HF_HUB_CACHE", value_name = "FOLDER")]
    pub hub_cache: Option<PathBuf>,

    /// Hugging Face's folder [default: ~/.cache/huggingface; without a home folder, in the data folder]
    #[arg(long, env = "HF_HOME", value_name = "FOLDER")]
    pub hub_home: Option<PathBuf>,
}

/// Which model to load and where it may come from.
#[derive(Debug, Clone)]
pub struct BaseModel {
    pub model: String,
    pub hub: Settings,
}

impl Flags {
    pub fn resolve(&self, data_dir: &Path) -> BaseModel {
        let model = match &self.model {
            Some(model) if !model.trim().is_empty() => model.clone(),
            _ if Path::new(DEFAULT_FOLDER).is_dir() => DEFAULT_FOLDER.to_string(),
            _ => DEFAULT_ID.to_string(),
        };
        let hub = Settings {
            endpoint: self.hub_endpoint.trim_end_matches('/').to_string(),
            token: self.hub_token.clone().filter(|token| !token.trim().is_empty()),
            network: if self.hub_offline { Network::Offline } else { Network::Allowed },
            cache: self.cache(data_dir),
        };
        BaseModel { model, hub }
    }

    fn cache(&self, data_dir: &Path) -> PathBuf {
        if let Some(cache) = &self.hub_cache {
            return cache.clone();
        }
        let home = self.hub_home.clone().or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface")));
        home.unwrap_or_else(|| data_dir.join("huggingface")).join("hub")
    }
}
