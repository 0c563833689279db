//! Reads tensors of safetensors files one at a time, without mapping or loading the whole file.

use super::checkpoint_files::damaged_file_error;
use super::weights::{CheckpointTensors, StoredTensor};
use crate::error::{Error, Result};
use espalier_tensor::Tensor;
use espalier_tensor::quant::{QuantFormat, StoredWeight};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`.
///
/// `canonical_name` maps a tensor name of the checkpoint to the canonical name; `None` for tensors that are not needed.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) if a file is missing or damaged.
pub fn open(folder: &Path, canonical_name: impl Fn(&str) -> Option<String>) -> Result<CheckpointTensors> {
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
    Ok(CheckpointTensors::from_tensors(tensors))
}

/// A tensor of a safetensors file.
struct SafetensorsEntry {
    file: Arc<SafetensorsFile>,
    info: TensorInfo,
}

struct SafetensorsFile {
    file: File,
    path: PathBuf,
    /// Offset of the tensor data, after the header.
    data_start: u64,
}

/// Size of the header length at the start of a file.
const HEADER_LENGTH_BYTES: u64 = 8;
/// Largest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

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

/// Reads the header alone; the crate's `read_metadata` needs the whole file in memory.
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
    let data_bytes = metadata.data_len() as u64;
    if file_length.checked_sub(start) != Some(data_bytes) {
        return Err(format!("it has {file_length} bytes, but its header of {length} says that {data_bytes} follow it"));
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
