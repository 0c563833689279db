//! The safetensors file of an adapter: deterministic writing, strict reading.
//!
//! Reads with a parser of its own, because a file from outside must be refused with the tensor's name and must never
//! panic, whatever its header claims. Knows nothing of what the tensors mean.

mod header;
mod stored_dtype;

use super::validation_errors::ValidationErrors;
use crate::error::{Context, Error, Result};
use espalier_tensor::Tensor;
use header::TensorInfo;
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// The bytes of a file with these tensors as F32, in the order of their names: equal tensors give equal bytes.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every tensor that holds a value which is not finite.
pub fn write(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let mut errors = ValidationErrors::default();
    tensors
        .iter()
        .filter(|(_, tensor)| !all_finite(tensor))
        .for_each(|(name, _)| errors.push(not_finite_message(name)));
    errors.into_result("adapter_tensors", "the adapter cannot be saved")?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(tensors.iter().map(|(name, tensor)| (name, F32View(tensor))), Some(metadata))
        .context("writing the adapter's tensors")
}

/// The tensors of a file by name, widened to `f32`.
///
/// # Errors
/// `Invalid`: `unreadable_adapter` where the file is damaged, `adapter_tensors` naming every tensor of a type that is
/// not F32, F16 or BF16, or with values that are not finite.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let (entries, data) = header::parse_header(bytes).map_err(|reason| {
        Error::invalid(
            "unreadable_adapter",
            format!("adapter_model.safetensors is damaged: {reason}; save or upload it again"),
        )
    })?;
    let mut errors = ValidationErrors::default();
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        match decode_tensor(&entry, data) {
            Some(tensor) if all_finite(&tensor) => {
                tensors.insert(name, tensor);
            }
            Some(_) => errors.push(not_finite_message(&name)),
            None => errors.push(format!("{name} is stored as {}, expected F32, F16 or BF16", entry.dtype)),
        }
    }
    errors.into_result("adapter_tensors", "the adapter's tensors cannot be used")?;
    Ok(tensors)
}

fn all_finite(tensor: &Tensor) -> bool {
    tensor.values.iter().all(|value| value.is_finite())
}

fn not_finite_message(name: &str) -> String {
    format!("{name} holds values that are not finite (NaN or infinite)")
}

/// `None` where the type is none of ours.
fn decode_tensor(entry: &TensorInfo, data: &[u8]) -> Option<Tensor> {
    let stored_dtype = stored_dtype::StoredDtype::from_name(&entry.dtype)?;
    Some(Tensor::new(entry.shape.clone(), stored_dtype.to_f32(&data[entry.byte_range.clone()])))
}

/// A tensor as the safetensors crate wants to see it.
struct F32View<'a>(&'a Tensor);

impl View for F32View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.to_le_bytes())
    }

    fn data_len(&self) -> usize {
        self.0.bytes()
    }
}

#[cfg(test)]
mod tests;
