//! The safetensors file of an adapter: deterministic writing, strict reading.
//!
//! The header is parsed here and not by the safetensors crate, whose errors do not name the tensor. Every entry of the header is
//! checked against the file before any tensor is read.
//! [`TensorSpec`] maps the tensors of a file to native ones.

use crate::adapter::TensorMap;
use crate::adapter::tensor_spec::{TensorSpec, ValidationErrors, shape_mismatch};
use crate::error::{Context, Error, Result};
use espalier_tensor::Tensor;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, View};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

#[cfg(test)]
mod tests;

/// Writes the tensors as F32 in the order of their names: equal tensors give equal bytes.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every tensor with a value that is not finite.
pub fn write(tensors: &TensorMap) -> Result<Vec<u8>> {
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

/// Reads the tensors of a file and converts them to `f32`.
///
/// # Errors
/// `Invalid`: `unreadable_adapter` if the file is damaged, `adapter_tensors` naming every tensor of a type that is
/// not F32, F16 or BF16, or with values that are not finite.
pub fn read(bytes: &[u8]) -> Result<TensorMap> {
    let (entries, data) = parse_header(bytes).map_err(|reason| {
        Error::invalid(
            "unreadable_adapter",
            format!("adapter_model.safetensors is damaged: {reason}; save or upload it again"),
        )
    })?;
    let mut errors = ValidationErrors::default();
    let mut tensors = TensorMap::new();
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

/// `None` for a type that is not read.
fn decode_tensor(entry: &TensorInfo, data: &[u8]) -> Option<Tensor> {
    Some(Tensor::new(entry.shape.clone(), to_f32(&entry.dtype, &data[entry.byte_range.clone()])?))
}

/// Largest accepted header. An adapter has some hundred tensors.
const MAX_HEADER_BYTES: usize = 16 << 20;

/// A validated entry of the header.
struct TensorInfo {
    dtype: String,
    shape: Vec<usize>,
    /// Bytes after the header.
    byte_range: Range<usize>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    _metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, RawTensorInfo>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensorInfo {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Returns the entries by name, and the bytes after the header. Validates every entry against the length of the file first.
///
/// # Errors
/// The reason.
fn parse_header(bytes: &[u8]) -> Result<(BTreeMap<String, TensorInfo>, &[u8]), String> {
    let (header_len_bytes, after_length) = bytes.split_first_chunk::<8>().ok_or("it is shorter than eight bytes")?;
    let header_len = usize::try_from(u64::from_le_bytes(*header_len_bytes)).unwrap_or(usize::MAX);
    if header_len > MAX_HEADER_BYTES {
        return Err(format!("its header claims {header_len} bytes, at most {MAX_HEADER_BYTES} are accepted"));
    }
    let (header, data) =
        after_length.split_at_checked(header_len).ok_or("it ends inside its header (was the upload cut off?)")?;
    let header: Header = serde_json::from_slice(header).map_err(|error| format!("its header is not valid: {error}"))?;
    let mut entries = BTreeMap::new();
    for (name, raw) in header.tensors {
        let entry = validate_info(raw, data.len()).map_err(|reason| format!("tensor {name} {reason}"))?;
        entries.insert(name, entry);
    }
    check_coverage(&entries, data.len())?;
    Ok((entries, data))
}

/// Checks that the range of one tensor lies within the data and has the size of its shape.
fn validate_info(raw: RawTensorInfo, data_len: usize) -> Result<TensorInfo, String> {
    let (start, end) = raw.data_offsets;
    if start > end || end > data_len {
        return Err(format!("claims the bytes {start} to {end} of {data_len} (was the upload cut off?)"));
    }
    // `read` rejects other types by name.
    if let Some(dtype_size) = size_of_dtype(&raw.dtype) {
        let expected_bytes = raw.shape.iter().try_fold(dtype_size, |bytes, &size| bytes.checked_mul(size));
        if expected_bytes != Some(end - start) {
            return Err(format!("has the shape {:?} of {} but {} bytes", raw.shape, raw.dtype, end - start));
        }
    }
    Ok(TensorInfo { dtype: raw.dtype, shape: raw.shape, byte_range: start..end })
}

/// Bytes of one value; `None` for a type that is not read.
fn size_of_dtype(dtype: &str) -> Option<usize> {
    match dtype {
        "F32" => Some(4),
        "F16" | "BF16" => Some(2),
        _ => None,
    }
}

/// Converts little-endian values to `f32`; `None` for a type that is not read.
fn to_f32(dtype: &str, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        "F32" => Some(bytes.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect()),
        "F16" => Some(halves().map(|half| f16::from_le_bytes(half).to_f32()).collect()),
        "BF16" => Some(halves().map(|half| bf16::from_le_bytes(half).to_f32()).collect()),
        _ => None,
    }
}

/// Checks that the ranges cover the data without a gap or an overlap.
fn check_coverage(entries: &BTreeMap<String, TensorInfo>, data_len: usize) -> Result<(), String> {
    let mut ranges: Vec<(&Range<usize>, &String)> =
        entries.iter().map(|(name, entry)| (&entry.byte_range, name)).collect();
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    let mut end = 0;
    for (range, name) in ranges {
        if range.start != end {
            return Err(format!("tensor {name} starts at byte {}, expected {end}", range.start));
        }
        end = range.end;
    }
    match end == data_len {
        true => Ok(()),
        false => Err(format!("{} bytes at its end belong to no tensor", data_len - end)),
    }
}

/// Serializes a tensor as F32.
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

/// Moves one tensor out of `file_tensors` and inserts its native tensors. Records an error if it is missing or misshapen.
pub fn take_tensor(
    spec: &TensorSpec,
    file_tensors: &mut TensorMap,
    native_tensors: &mut TensorMap,
    errors: &mut ValidationErrors,
) {
    let Some(tensor) = file_tensors.remove(&spec.key) else {
        return errors.push(format!("{} is missing", spec.key));
    };
    if tensor.shape != spec.shape {
        return errors.push(shape_mismatch(&spec.key, &tensor.shape, &spec.shape));
    }
    let width = spec.shape.last().copied().unwrap_or(1).max(1);
    for slice in &spec.slices {
        let rows = tensor.values.chunks_exact(width);
        let values = rows.flat_map(|row| &row[slice.column_range.clone()]).copied().collect();
        native_tensors.insert(slice.name.clone(), Tensor::new(slice.shape.clone(), values));
    }
}

/// Builds the file's tensor from native ones. `take_native` returns a native tensor by name; returns `None` if it has not all of
/// them.
pub fn build_tensor<'a>(spec: &TensorSpec, mut take_native: impl FnMut(&str) -> Option<&'a Tensor>) -> Option<Tensor> {
    let slices: Vec<&Tensor> = spec.slices.iter().map(|slice| take_native(&slice.name)).collect::<Option<_>>()?;
    let width = spec.shape.last().copied().unwrap_or(1);
    let mut values = vec![0.0; spec.shape.iter().product()];
    for (slice, tensor) in spec.slices.iter().zip(slices) {
        let rows = tensor.values.chunks_exact(slice.column_range.len().max(1));
        for (row, slice_row) in values.chunks_exact_mut(width.max(1)).zip(rows) {
            row[slice.column_range.clone()].copy_from_slice(slice_row);
        }
    }
    Some(Tensor::new(spec.shape.clone(), values))
}
