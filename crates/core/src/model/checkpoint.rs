//! Where a base model's parts lie: in a folder as transformers writes it, or all in one GGUF file.

use super::gguf::Gguf;
use super::speech;
use super::tokenizer::{Speech, Tokenizer};
use super::weights::{Weights, read_json};
use crate::error::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub enum Checkpoint {
    Folder(PathBuf),
    File(Box<Gguf>),
}

impl Checkpoint {
    /// # Errors
    /// `Invalid` (`base_model_damaged`) where a GGUF file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        match path.is_file() {
            true => Ok(Self::File(Box::new(Gguf::open(path)?))),
            false => Ok(Self::Folder(path.to_path_buf())),
        }
    }

    /// As transformers' `config.json`.
    pub fn config(&self) -> Result<Value> {
        match self {
            Self::Folder(folder) => read_json(&folder.join("config.json")),
            Self::File(gguf) => gguf.config(),
        }
    }

    /// The tokenizer and, for the fingerprint, what it is made of.
    pub fn tokenizer(&self) -> Result<(Tokenizer, Value)> {
        match self {
            Self::Folder(folder) => Tokenizer::load(folder),
            Self::File(gguf) => gguf.tokenizer(),
        }
    }

    /// What it says of conversations, and of where texts end.
    pub fn speech(&self, config: &Value, tokenizer: &Tokenizer) -> Result<Speech> {
        match self {
            Self::Folder(folder) => speech::of_folder(folder, config, tokenizer),
            Self::File(gguf) => Ok(speech::of_gguf(gguf, tokenizer)),
        }
    }

    /// `canonical` maps the name that a tensor has in transformers to ours, `None` for what is not needed.
    pub fn weights(&self, canonical: impl Fn(&str) -> Option<String>) -> Result<Weights> {
        match self {
            Self::Folder(folder) => Weights::open(folder, canonical),
            Self::File(gguf) => gguf.weights(canonical),
        }
    }
}
