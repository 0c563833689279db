//! The tensors of a checkpoint, and the fingerprint of the base model.

use super::checkpoint_files::damaged_file_error;
use crate::error::{Error, Result};
use espalier_tensor::Tensor;
use espalier_tensor::quant::StoredWeight;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors of a checkpoint by canonical name. Each is read when it is taken, so that only one is in memory besides the loaded
/// model.
pub struct CheckpointTensors {
    tensors: BTreeMap<String, Box<dyn StoredTensor>>,
    fingerprint_hash: Sha256,
    /// Name and digest of a tensor that enters the fingerprint after all others.
    hashed_last: Option<(String, [u8; 32])>,
    parameter_count: u64,
}

/// A tensor in a file.
pub trait StoredTensor {
    fn shape(&self) -> &[usize];

    /// Reads the tensor as f32, and the sha256 of its type, shape and stored bytes.
    ///
    /// # Errors
    /// A description of the damage.
    fn read(&self) -> std::result::Result<(Tensor, [u8; 32]), String>;

    /// Reads a matrix in its stored format, with the same sha256.
    ///
    /// # Errors
    /// A description of the damage.
    fn read_weight(&self) -> std::result::Result<(StoredWeight, [u8; 32]), String> {
        self.read().map(|(tensor, digest)| (StoredWeight::Dense(tensor), digest))
    }

    /// Path of the file.
    fn path(&self) -> &Path;
}

impl CheckpointTensors {
    /// From tensors by canonical name.
    pub fn from_tensors(tensors: BTreeMap<String, Box<dyn StoredTensor>>) -> Self {
        Self { tensors, fingerprint_hash: Sha256::new(), hashed_last: None, parameter_count: 0 }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes a tensor. Its name, shape and bytes enter the fingerprint, so architectures take tensors in a fixed order.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) if the tensor is missing or has another shape or an unsupported number type.
    pub fn take_tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (tensor, digest) = self.read_tensor(name, shape, |entry| entry.read())?;
        self.add_to_fingerprint(name, digest);
        self.parameter_count += tensor.values.len() as u64;
        Ok(tensor)
    }

    /// Takes a matrix in its stored format.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) as [`Self::take_tensor`].
    pub fn take_weight(&mut self, name: &str, shape: [usize; 2]) -> Result<StoredWeight> {
        let (weight, digest) = self.read_tensor(name, &shape, |entry| entry.read_weight())?;
        self.add_to_fingerprint(name, digest);
        self.parameter_count += shape.iter().product::<usize>() as u64;
        Ok(weight)
    }

    /// Takes a matrix of any shape in its stored format. In the fingerprint it follows the tensors that are taken later.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) if the tensor is missing, is no matrix, or has an unsupported number type.
    pub fn take_weight_hashed_last(&mut self, name: &str) -> Result<StoredWeight> {
        let shape: [usize; 2] = match self.tensors.get(name).map(|entry| entry.shape()) {
            Some(&[rows, columns]) => [rows, columns],
            _ => return Err(Error::invalid("base_model_damaged", format!("the tensor {name} is no matrix"))),
        };
        let (weight, digest) = self.read_tensor(name, &shape, |entry| entry.read_weight())?;
        self.hashed_last = Some((name.to_string(), digest));
        self.parameter_count += shape.iter().product::<usize>() as u64;
        Ok(weight)
    }

    fn add_to_fingerprint(&mut self, name: &str, digest: [u8; 32]) {
        self.fingerprint_hash.update((name.len() as u64).to_le_bytes());
        self.fingerprint_hash.update(name.as_bytes());
        self.fingerprint_hash.update(digest);
    }

    /// Takes a tensor that does not enter the fingerprint, for example of a masked language model's head.
    ///
    /// # Errors
    /// `Invalid` (`base_model_damaged`) as [`Self::take_tensor`].
    pub fn take_unhashed(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(self.read_tensor(name, shape, |entry| entry.read())?.0)
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

    /// Number of parameters that entered the fingerprint so far.
    pub fn parameter_count(&self) -> u64 {
        self.parameter_count
    }

    /// Fingerprint `sha256:…` of the tensors taken, the tokenizer, and the fields of the config that change the results.
    pub fn fingerprint(mut self, tokenizer: &Value, config: &Value) -> String {
        if let Some((name, digest)) = self.hashed_last.take() {
            self.add_to_fingerprint(&name, digest);
        }
        let mut hash = self.fingerprint_hash;
        hash_json(&mut hash, tokenizer);
        hash_json(&mut hash, config);
        format!("sha256:{}", hex::encode(hash.finalize()))
    }
}

/// Hashes JSON with sorted object keys, so that the hash does not depend on formatting.
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

#[cfg(test)]
mod tests {
    use super::*;

    struct InMemory(Tensor);

    impl StoredTensor for InMemory {
        fn shape(&self) -> &[usize] {
            &self.0.shape
        }

        fn read(&self) -> std::result::Result<(Tensor, [u8; 32]), String> {
            Ok((self.0.clone(), [self.0.values[0] as u8; 32]))
        }

        fn path(&self) -> &Path {
            Path::new("memory")
        }
    }

    fn tensors() -> CheckpointTensors {
        let tensor = |shape: &[usize], value| {
            let values = vec![value; shape.iter().product()];
            Box::new(InMemory(Tensor::new(shape.to_vec(), values))) as Box<dyn StoredTensor>
        };
        let entries = [("layer", tensor(&[2, 3], 1.0)), ("norm", tensor(&[3], 2.0)), ("output", tensor(&[5, 3], 3.0))];
        CheckpointTensors::from_tensors(entries.map(|(name, tensor)| (name.to_string(), tensor)).into())
    }

    #[test]
    fn a_weight_hashed_last_gives_the_same_fingerprint_whenever_it_is_taken() {
        let (mut first, mut last) = (tensors(), tensors());
        assert_eq!(first.take_weight_hashed_last("output").unwrap().shape(), [5, 3]);
        for weights in [&mut first, &mut last] {
            weights.take_weight("layer", [2, 3]).unwrap();
            weights.take_tensor("norm", &[3]).unwrap();
        }
        last.take_weight("output", [5, 3]).unwrap();
        assert_eq!((first.parameter_count(), last.parameter_count()), (24, 24));
        assert_eq!(first.fingerprint(&Value::Null, &Value::Null), last.fingerprint(&Value::Null, &Value::Null));
    }

    #[test]
    fn only_a_matrix_is_taken_hashed_last() {
        for name in ["norm", "missing"] {
            let error = tensors().take_weight_hashed_last(name).err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
