//! The parts of a checkpoint: a folder of transformers, or one GGUF file.

use super::checkpoint_files::read_json;
use super::generation_config::{self, GenerationConfig};
use super::gguf::{self, GgufFile};
use super::safetensors_file;
use super::tokenizer::Tokenizer;
use super::weights::CheckpointTensors;
use crate::error::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where the weights of a base model are read from.
pub enum Checkpoint {
    Directory(PathBuf),
    Gguf(Box<GgufFile>),
}

impl Checkpoint {
    /// # Errors
    /// `Invalid` (`base_model_damaged`) if a GGUF file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        match path.is_file() {
            true => Ok(Self::Gguf(Box::new(GgufFile::open(path)?))),
            false => Ok(Self::Directory(path.to_path_buf())),
        }
    }

    /// `config.json` of transformers.
    pub fn config(&self) -> Result<Value> {
        match self {
            Self::Directory(folder) => read_json(&folder.join("config.json")),
            Self::Gguf(file) => gguf::read_hf_config(file),
        }
    }

    /// The tokenizer, and the JSON that enters the fingerprint.
    pub fn tokenizer(&self) -> Result<(Tokenizer, Value)> {
        match self {
            Self::Directory(folder) => Tokenizer::load(folder),
            Self::Gguf(file) => {
                Tokenizer::from_json(gguf::read_tokenizer_json(file)?.to_string().as_bytes(), &file.path)
            }
        }
    }

    /// Chat template and end-of-text tokens.
    pub fn generation_config(&self, config: &Value, tokenizer: &Tokenizer) -> Result<GenerationConfig> {
        match self {
            Self::Directory(folder) => generation_config::from_folder(folder, config, tokenizer.vocabulary()),
            Self::Gguf(file) => Ok(generation_config::from_gguf(file, tokenizer.vocabulary())),
        }
    }

    /// `canonical_name` maps transformers' name of a tensor to the canonical name; `None` for tensors that are not needed.
    pub fn tensors(&self, canonical_name: impl Fn(&str) -> Option<String>) -> Result<CheckpointTensors> {
        match self {
            Self::Directory(folder) => safetensors_file::open(folder, canonical_name),
            Self::Gguf(file) => gguf::read_weights(file, canonical_name),
        }
    }
}
