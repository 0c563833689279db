//! Where a base model's parts lie: in a folder as transformers writes it, or all in one GGUF file.

use super::generation_config::{self, GenerationConfig};
use super::gguf::{self, GgufFile};
use super::tokenizer::Tokenizer;
use super::weights::{CheckpointTensors, read_json};
use crate::error::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub enum Checkpoint {
    Directory(PathBuf),
    Gguf(Box<GgufFile>),
}

impl Checkpoint {
    /// # Errors
    /// `Invalid` (`base_model_damaged`) where a GGUF file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        match path.is_file() {
            true => Ok(Self::Gguf(Box::new(GgufFile::open(path)?))),
            false => Ok(Self::Directory(path.to_path_buf())),
        }
    }

    /// As transformers' `config.json`.
    pub fn config(&self) -> Result<Value> {
        match self {
            Self::Directory(folder) => read_json(&folder.join("config.json")),
            Self::Gguf(file) => gguf::read_hf_config(file),
        }
    }

    /// The tokenizer and, for the fingerprint, what it is made of.
    pub fn tokenizer(&self) -> Result<(Tokenizer, Value)> {
        match self {
            Self::Directory(folder) => Tokenizer::load(folder),
            Self::Gguf(file) => {
                Tokenizer::from_json(gguf::read_tokenizer_json(file)?.to_string().as_bytes(), &file.path)
            }
        }
    }

    /// What it says of conversations, and of where texts end.
    pub fn generation_config(&self, config: &Value, tokenizer: &Tokenizer) -> Result<GenerationConfig> {
        match self {
            Self::Directory(folder) => generation_config::from_folder(folder, config, tokenizer.vocabulary()),
            Self::Gguf(gguf) => Ok(generation_config::from_gguf(gguf, tokenizer.vocabulary())),
        }
    }

    /// `canonical` maps the name that a tensor has in transformers to ours, `None` for what is not needed.
    pub fn tensors(&self, canonical_name: impl Fn(&str) -> Option<String>) -> Result<CheckpointTensors> {
        match self {
            Self::Directory(folder) => CheckpointTensors::open(folder, canonical_name),
            Self::Gguf(file) => gguf::read_weights(file, canonical_name),
        }
    }
}
