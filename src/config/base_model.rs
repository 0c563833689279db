//! Settings of the base model and the Hugging Face Hub. The `HF_…` variables mean the same as in Hugging Face's tools.

use clap::Args;
use espalier_core::model::hub::Settings;
use espalier_tensor::{Device, WeightFormat};
use std::path::Path;

/// Folder that `make model` downloads the default base model into.
const DEFAULT_MODEL_DIR: &str = "models/all-MiniLM-L6-v2";
const DEFAULT_HUB_ID: &str = "sentence-transformers/all-MiniLM-L6-v2";

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Base model")]
pub struct Flags {
    /// Base model: a folder, a GGUF file, or a Hugging Face Hub id (`org/name`, `org/name@revision`)
    ///
    /// The default is the folder models/all-MiniLM-L6-v2 if it exists (`make model` creates it), otherwise the hub's
    /// sentence-transformers/all-MiniLM-L6-v2. Models of the hub are downloaded once into Hugging Face's cache; HF_ENDPOINT, HF_TOKEN,
    /// HF_HUB_OFFLINE, HF_HUB_CACHE and HF_HOME mean the same as in Hugging Face's tools.
    #[arg(long, env = "ESPALIER_MODEL", value_name = "FOLDER|ID")]
    pub model: Option<String>,

    /// Compute device: cpu, cuda, or cuda:N for GPU number N (CUDA requires a build by scripts/cuda.sh)
    #[arg(long, env = "ESPALIER_DEVICE", value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Format of the frozen weights in memory: as-is (the checkpoint's precision, GGUF's k-quants among them), f32, or f16, bf16,
    /// q8_0 or q4_0, which convert at load; on a GPU f32 or bf16
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

/// Reads the hub's settings from the environment.
pub fn hub_settings() -> Settings {
    #[allow(clippy::disallowed_methods, reason = "only config reads the environment")]
    Settings::from_env(|name| std::env::var(name).ok())
}
