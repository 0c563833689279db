//! Safetensors on disk become tensors in memory, and the base's fingerprint is taken on the way.
//!
//! Knows no architecture: a caller asks for tensors by canonical name, and everything it asked for is hashed.

use crate::error::{Context, Error, Result};
use espalier_tensor::Tensor;
use espalier_tensor::stored_weight::{QuantFormat, StoredWeight};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tensors of a checkpoint. Each is read when it is asked for, so that no more than one is in memory beside what the
/// model makes of it.
pub struct CheckpointTensors {
    tensors: BTreeMap<String, Box<dyn StoredTensor>>,
    fingerprint_hash: Sha256,
    parameter_count: u64,
}

/// A tensor in a file.
pub trait StoredTensor {
    fn shape(&self) -> &[usize];

    /// The tensor, and the sha256 over its shape and its bytes as stored.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(&self) -> std::result::Result<(Tensor, [u8; 32]), String>;

    /// A matrix as it is stored, with the same sha256.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read_weight(&self) -> std::result::Result<(StoredWeight, [u8; 32]), String> {
        self.read().map(|(tensor, digest)| (StoredWeight::Dense(tensor), digest))
    }

    fn path(&self) -> &Path;
}

/// One in a safetensors file.
struct SafetensorsEntry {
    file: Arc<SafetensorsFile>,
    info: TensorInfo,
}

struct SafetensorsFile {
    file: File,
    path: PathBuf,
    /// Where the numbers begin.
    data_start: u64,
}

/// The length of the header, at the beginning of a file.
const HEADER_LENGTH_BYTES: u64 = 8;
/// The most that the format allows for a header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

impl CheckpointTensors {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// `canonical` maps a checkpoint's name to ours, `None` for what is not needed.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) where a file is missing or damaged.
    pub fn open(folder: &Path, canonical_name: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut tensors: BTreeMap<String, Box<dyn StoredTensor>> = BTreeMap::new();
        for path in safetensors_paths(folder)? {
            let (file, metadata) = read_header(&path).map_err(|reason| damaged_file_error(&path, &reason))?;
            let file = Arc::new(file);
            for (name, info) in metadata.tensors() {
                if let Some(name) = canonical_name(&name) {
                    tensors.insert(name, Box::new(SafetensorsEntry { file: Arc::clone(&file), info: info.clone() }));
                }
            }
        }
        Ok(Self::from_tensors(tensors))
    }

    /// Of tensors by our names.
    pub fn from_tensors(tensors: BTreeMap<String, Box<dyn StoredTensor>>) -> Self {
        Self { tensors, fingerprint_hash: Sha256::new(), parameter_count: 0 }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes one tensor out; its name, shape and bytes enter the fingerprint, so architectures ask in a fixed order.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) where it is missing, of another shape or of an unknown number type.
    pub fn take_tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (tensor, digest) = self.read_tensor(name, shape, |place| place.read())?;
        self.record_taken(name, digest, shape);
        Ok(tensor)
    }

    /// The same of a matrix as it is stored.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_weight(&mut self, name: &str, shape: [usize; 2]) -> Result<StoredWeight> {
        let (raw, digest) = self.read_tensor(name, &shape, |place| place.read_weight())?;
        self.record_taken(name, digest, &shape);
        Ok(raw)
    }

    fn record_taken(&mut self, name: &str, digest: [u8; 32], shape: &[usize]) {
        self.fingerprint_hash.update((name.len() as u64).to_le_bytes());
        self.fingerprint_hash.update(name.as_bytes());
        self.fingerprint_hash.update(digest);
        self.parameter_count += shape.iter().product::<usize>() as u64;
    }

    /// The same for a tensor that is not the base's own, as a masked language model's head: it does not enter the fingerprint.
    pub fn take_unhashed(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(self.read_tensor(name, shape, |place| place.read())?.0)
    }

    fn read_tensor<T>(
        &mut self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce(&dyn StoredTensor) -> std::result::Result<T, String>,
    ) -> Result<T> {
        let Some(entry) = self.tensors.remove(name) else {
            return Err(Error::invalid(
                "base_model_damaged",
                format!("the base model's weights lack the tensor {name}"),
            ));
        };
        if entry.shape() != shape {
            let detail = format!("the tensor {name} is {:?}, but the config asks for {shape:?}", entry.shape());
            return Err(Error::invalid("base_model_damaged", detail));
        }
        read(entry.as_ref()).map_err(|reason| damaged_file_error(entry.path(), &format!("{name}: {reason}")))
    }

    /// The numbers taken so far.
    pub fn parameter_count(&self) -> u64 {
        self.parameter_count
    }

    /// `sha256:…` over what was taken, the tokenizer, and the fields of the config that change arithmetic.
    pub fn fingerprint(self, tokenizer: &Value, config: &Value) -> String {
        let mut hash = self.fingerprint_hash;
        hash_json(&mut hash, tokenizer);
        hash_json(&mut hash, config);
        format!("sha256:{}", hex(&hash.finalize()))
    }
}

fn safetensors_paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    let Ok(text) = std::fs::read(&index) else {
        let detail = format!("{} has no model.safetensors (PyTorch's .bin files are not read)", folder.display());
        return Err(Error::invalid("base_model_damaged", detail));
    };
    let index_json: Value =
        serde_json::from_slice(&text).map_err(|error| damaged_file_error(&index, &error.to_string()))?;
    let weight_map =
        index_json["weight_map"].as_object().ok_or_else(|| damaged_file_error(&index, "it has no weight_map"))?;
    let mut names: Vec<&str> = weight_map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn read_header(path: &Path) -> std::result::Result<(SafetensorsFile, Metadata), String> {
    let to_message = |error: std::io::Error| error.to_string();
    let file = File::open(path).map_err(to_message)?;
    let file_length = file.metadata().map_err(to_message)?.len();
    let mut length = [0; HEADER_LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, 0).map_err(to_message)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(file_length) {
        return Err("it is no safetensors file".to_string());
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, HEADER_LENGTH_BYTES).map_err(to_message)?;
    let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let start = HEADER_LENGTH_BYTES + length;
    let numbers = metadata.data_len() as u64;
    if file_length.checked_sub(start) != Some(numbers) {
        return Err(format!("it has {file_length} bytes, but its header of {length} says that {numbers} follow it"));
    }
    Ok((SafetensorsFile { file, path: path.to_path_buf(), data_start: start }, metadata))
}

impl StoredTensor for SafetensorsEntry {
    fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    fn path(&self) -> &Path {
        &self.file.path
    }

    fn read_weight(&self) -> std::result::Result<(StoredWeight, [u8; 32]), String> {
        let format = match self.info.dtype {
            Dtype::F16 => QuantFormat::F16,
            Dtype::BF16 => QuantFormat::Bf16,
            _ => return self.read().map(|(tensor, digest)| (StoredWeight::Dense(tensor), digest)),
        };
        match self.info.shape.as_slice() {
            [output, input] if input.is_multiple_of(32) => {
                let bytes = self.bytes()?;
                let digest = self.digest(&bytes);
                Ok((StoredWeight::Quantized { format, shape: [*output, *input], bytes }, digest))
            }
            _ => self.read().map(|(tensor, digest)| (StoredWeight::Dense(tensor), digest)),
        }
    }

    fn read(&self) -> std::result::Result<(Tensor, [u8; 32]), String> {
        let bytes = self.bytes()?;
        let values: Vec<f32> = match self.info.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|chunk| half::f16::from_le_bytes(*chunk).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|chunk| half::bf16::from_le_bytes(*chunk).to_f32()).collect(),
            other => return Err(format!("numbers of the type {other:?} are not read; save it as F32, F16 or BF16")),
        };
        Ok((Tensor::new(self.info.shape.clone(), values), self.digest(&bytes)))
    }
}

impl SafetensorsEntry {
    fn bytes(&self) -> std::result::Result<Vec<u8>, String> {
        let (start, end) = self.info.data_offsets;
        let mut bytes = vec![0; end - start];
        self.file
            .file
            .read_exact_at(&mut bytes, self.file.data_start + start as u64)
            .map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}{:?}", self.info.dtype, self.info.shape.as_slice()));
        hash.update(bytes);
        hash.finalize().into()
    }
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
    serde_json::from_slice(&bytes).map_err(|error| damaged_file_error(path, &error.to_string()))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn damaged_file_error(file: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", file.display()))
}
