//! Safetensors on disk become tensors in memory, and the base's fingerprint is taken on the way.
//!
//! Knows no architecture: a caller asks for tensors by canonical name, and everything it asked for is hashed.

use crate::compute::Tensor;
use crate::error::{Context, Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The tensors of a checkpoint, read file by file.
pub struct Weights {
    tensors: BTreeMap<String, Stored>,
    hash: Sha256,
    parameters: u64,
}

struct Stored {
    tensor: Tensor,
    /// sha256 over the shape and the bytes as stored.
    digest: [u8; 32],
}

impl Weights {
    /// Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// `canonical` maps a checkpoint's name to ours, `None` for what is not needed.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) where a file is missing, damaged or of an unknown number type.
    pub fn open(folder: &Path, canonical: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for file in files(folder)? {
            let bytes = std::fs::read(&file).map_err(|error| damaged(&file, &error.to_string()))?;
            let views = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&file, &error.to_string()))?;
            for (name, view) in views.iter() {
                if let Some(name) = canonical(name) {
                    let stored = read(&view).map_err(|reason| damaged(&file, &format!("{name}: {reason}")))?;
                    tensors.insert(name, stored);
                }
            }
        }
        Ok(Self { tensors, hash: Sha256::new(), parameters: 0 })
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes one tensor out; its name, shape and bytes enter the fingerprint, so architectures ask in a fixed order.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(stored) = self.tensors.remove(name) else {
            return Err(Error::invalid(
                "base_model_damaged",
                format!("the base model's weights lack the tensor {name}"),
            ));
        };
        if stored.tensor.shape != shape {
            let detail = format!("the tensor {name} is {:?}, but config.json asks for {shape:?}", stored.tensor.shape);
            return Err(Error::invalid("base_model_damaged", detail));
        }
        self.hash.update((name.len() as u64).to_le_bytes());
        self.hash.update(name.as_bytes());
        self.hash.update(stored.digest);
        self.parameters += stored.tensor.values.len() as u64;
        Ok(stored.tensor)
    }

    /// The numbers taken so far.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// `sha256:…` over what was taken, the tokenizer, and the fields of the config that change arithmetic.
    pub fn fingerprint(self, tokenizer: &Value, config: &Value) -> String {
        let mut hash = self.hash;
        hash_json(&mut hash, tokenizer);
        hash_json(&mut hash, config);
        format!("sha256:{}", hex(&hash.finalize()))
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    let Ok(text) = std::fs::read(&index) else {
        let detail = format!("{} has no model.safetensors (PyTorch's .bin files are not read)", folder.display());
        return Err(Error::invalid("base_model_damaged", detail));
    };
    let index_json: Value = serde_json::from_slice(&text).map_err(|error| damaged(&index, &error.to_string()))?;
    let map = index_json["weight_map"].as_object().ok_or_else(|| damaged(&index, "it has no weight_map"))?;
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn read(view: &TensorView) -> std::result::Result<Stored, String> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|chunk| half::f16::from_le_bytes(*chunk).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|chunk| half::bf16::from_le_bytes(*chunk).to_f32()).collect(),
        other => return Err(format!("numbers of the type {other:?} are not read; save it as F32, F16 or BF16")),
    };
    let mut hash = Sha256::new();
    hash.update(format!("{:?}{:?}", view.dtype(), view.shape()));
    hash.update(bytes);
    Ok(Stored { tensor: Tensor::new(view.shape(), values), digest: hash.finalize().into() })
}

/// Object keys in order, so that formatting does not matter.
fn hash_json(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            hash.update(b"{");
            for (key, value) in sorted {
                hash.update(Value::String(key.clone()).to_string());
                hash_json(hash, value);
            }
            hash.update(b"}");
        }
        Value::Array(items) => {
            hash.update(b"[");
            items.iter().for_each(|item| hash_json(hash, item));
            hash.update(b"]");
        }
        plain => {
            hash.update(plain.to_string());
            hash.update(b",");
        }
    }
}

/// Reads a JSON file of the base model.
pub fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(file: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", file.display()))
}
