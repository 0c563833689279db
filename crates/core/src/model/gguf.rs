//! A GGUF file: a whole model as llama.cpp reads it, in floats or quantised (k-quants and the older forms), with its tokenizer.
//! What it holds becomes what transformers' files would: config, tokenizer, and tensors under their names.

mod blocks;
mod config;
mod tensors;
mod tokenizer;

use super::tokenizer::Tokenizer;
use super::weights::{Weights, damaged};
use crate::error::{Error, Result};
use candle_core::quantized::gguf_file::{Content, Value as Field};
use serde_json::Value;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub struct Gguf {
    path: PathBuf,
    content: Arc<Content>,
}

impl Gguf {
    /// Reads all but the tensors.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) where it is no GGUF file, or a damaged one.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || {
            let file = File::open(path).map_err(|error| error.to_string())?;
            Content::read(&mut BufReader::new(file)).map_err(|error| error.to_string())
        };
        let content = read().map_err(|reason| damaged(path, &reason))?;
        Ok(Self { path: path.to_path_buf(), content: Arc::new(content) })
    }

    pub fn config(&self) -> Result<Value> {
        config::read(self)
    }

    pub fn tokenizer(&self) -> Result<(Tokenizer, Value)> {
        let json = tokenizer::read(self)?;
        Tokenizer::from_json(json.to_string().as_bytes(), &self.path)
    }

    pub fn weights(&self, canonical: impl Fn(&str) -> Option<String>) -> Result<Weights> {
        tensors::read(self, canonical)
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.content.metadata.get(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(|field| field.to_string().ok()).map(String::as_str)
    }

    /// A whole number of any of the format's types.
    pub fn whole(&self, name: &str) -> Option<u64> {
        self.field(name).and_then(whole)
    }

    fn number(&self, name: &str) -> Option<f64> {
        let field = self.field(name)?;
        field.to_f32().map(f64::from).or_else(|_| field.to_f64()).ok()
    }

    /// A switch, where the file has it.
    fn switch(&self, name: &str) -> Option<bool> {
        self.field(name).and_then(|field| field.to_bool().ok())
    }

    /// Whether there is such a tensor.
    fn has(&self, tensor: &str) -> bool {
        self.content.tensor_infos.contains_key(tensor)
    }

    /// # Errors
    /// `Invalid` (`base_model_damaged`) where the file does not say it.
    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| damaged(&self.path, &format!("it does not say {name}")))
    }

    /// # Errors
    /// `Invalid` (`unsupported_model`), always.
    fn unsupported<T>(&self, what: &str) -> Result<T> {
        Err(Error::invalid("unsupported_model", format!("{}: {what} is not supported", self.path.display())))
    }

    /// The architecture's word, which fields begin with.
    fn architecture(&self) -> Result<&str> {
        self.needed("general.architecture", self.text("general.architecture"))
    }
}

fn whole(field: &Field) -> Option<u64> {
    match field {
        Field::U8(value) => Some(u64::from(*value)),
        Field::U16(value) => Some(u64::from(*value)),
        Field::U32(value) => Some(u64::from(*value)),
        Field::U64(value) => Some(*value),
        Field::I8(value) => u64::try_from(*value).ok(),
        Field::I16(value) => u64::try_from(*value).ok(),
        Field::I32(value) => u64::try_from(*value).ok(),
        Field::I64(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}
