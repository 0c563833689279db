//! GGUF file of llama.cpp, with typed access to its metadata.

use crate::error::{Error, Result};
use crate::model::checkpoint_files::damaged_file_error;
use candle_core::quantized::gguf_file::{Content, Value as Field};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open GGUF file with its parsed header.
pub struct GgufFile {
    pub path: PathBuf,
    pub content: Arc<Content>,
}

impl GgufFile {
    /// Reads the metadata, not the tensors.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) if it is not a valid GGUF file.
    pub fn open(path: &Path) -> Result<Self> {
        let read_content = || {
            let file = File::open(path).map_err(|error| error.to_string())?;
            Content::read(&mut BufReader::new(file)).map_err(|error| error.to_string())
        };
        let content = read_content().map_err(|reason| damaged_file_error(path, &reason))?;
        Ok(Self { path: path.to_path_buf(), content: Arc::new(content) })
    }

    pub fn metadata_value(&self, key: &str) -> Option<&Field> {
        self.content.metadata.get(key)
    }

    pub fn str_value(&self, key: &str) -> Option<&str> {
        self.metadata_value(key).and_then(|field| field.to_string().ok()).map(String::as_str)
    }

    /// A non-negative integer of any of the format's integer types.
    pub fn u64_value(&self, key: &str) -> Option<u64> {
        self.metadata_value(key).and_then(value_as_u64)
    }

    pub fn f64_value(&self, key: &str) -> Option<f64> {
        let value = self.metadata_value(key)?;
        value.to_f32().map(f64::from).or_else(|_| value.to_f64()).ok()
    }

    pub fn bool_value(&self, key: &str) -> Option<bool> {
        self.metadata_value(key).and_then(|field| field.to_bool().ok())
    }

    pub fn has_tensor(&self, tensor_name: &str) -> bool {
        self.content.tensor_infos.contains_key(tensor_name)
    }

    /// Requires a metadata value.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) with the key if there is none.
    pub fn require<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| damaged_file_error(&self.path, &format!("it does not say {key}")))
    }

    /// # Errors
    /// `Invalid` (`unsupported_model`), always.
    pub fn unsupported<T>(&self, subject: &str) -> Result<T> {
        Err(Error::invalid("unsupported_model", format!("{}: {subject} is not supported", self.path.display())))
    }

    /// `general.architecture`, the prefix of the model's metadata keys.
    pub fn architecture(&self) -> Result<&str> {
        self.require("general.architecture", self.str_value("general.architecture"))
    }
}

pub fn value_as_u64(value: &Field) -> Option<u64> {
    match value {
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
