//! Which base model, and where the hub is. The `HF_…` variables mean what they mean to Hugging Face's own tools.

use clap::Args;
use espalier_core::model::hub::Settings;
use espalier_tensor::{Device, WeightFormat};
use std::path::Path;

/// Where `make model` puts the default base model.
const DEFAULT_MODEL_DIR: &str = "models/all-MiniLM-L6-v2";
const DEFAULT_HUB_ID: &str = "sentence-transformers/all-MiniLM-L6-v2";

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Base model")]
pub struct Flags {
    /// Base model: a folder, a GGUF file, or a hub id (`org/name`, `org/name@revision`)
    ///
    /// By default the folder models/all-MiniLM-L6-v2 where it exists (`make model` makes it), else the hub's
    /// sentence-transformers/all-MiniLM-L6-v2. A model of the hub is downloaded once, into the cache of Hugging Face's
    /// own tools; HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_CACHE and HF_HOME mean what they mean there.
    #[arg(long, env = "ESPALIER_MODEL", value_name = "FOLDER|ID")]
    pub model: Option<String>,

    /// Device that computes: cpu, cuda, or cuda:N for the GPU with the number N (a build of scripts/cuda.sh)
    #[arg(long, env = "ESPALIER_DEVICE", value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// How the frozen weights are held: as-is (in about as many bits as the checkpoint has, without loss), f32, or rounded to f16,
    /// bf16, q8_0 or q4_0; on a GPU f32 or bf16
    #[arg(long, env = "ESPALIER_WEIGHT_FORMAT", value_name = "TYPE", default_value_t = WeightFormat::Native)]
    pub weight_format: WeightFormat,
}

impl Flags {
    pub fn model_or_default(&self) -> String {
        match &self.model {
            Some(model) if !model.trim().is_empty() => model.clone(),
            _ if Path::new(DEFAULT_MODEL_DIR).is_dir() => DEFAULT_MODEL_DIR.to_string(),
            _ => DEFAULT_HUB_ID.to_string(),
        }
    }
}

/// Where the hub is, from the environment.
pub fn hub_settings() -> Settings {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    Settings::from_env(|name| std::env::var(name).ok())
}
