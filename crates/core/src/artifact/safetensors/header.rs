//! The header of a safetensors file: eight bytes of length, a JSON object, then the tensors' bytes end to end.
//!
//! Every claim of the header is checked against the file before a byte of a tensor is touched. Knows nothing of what a
//! number format means beyond its width.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// An adapter has some hundred tensors; a header beyond this is no adapter's.
const MAX_HEADER_BYTES: usize = 16 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub dtype: String,
    pub shape: Vec<usize>,
    /// Bytes after the header.
    pub byte_range: Range<usize>,
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

/// The tensors by name, and the bytes that their ranges point into. The error says what is wrong.
pub fn parse_header(bytes: &[u8]) -> Result<(BTreeMap<String, TensorInfo>, &[u8]), String> {
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

/// The claim of one tensor, where its range lies within the data and holds its shape exactly.
fn validate_info(raw: RawTensorInfo, data_len: usize) -> Result<TensorInfo, String> {
    let (start, end) = raw.data_offsets;
    if start > end || end > data_len {
        return Err(format!("claims the bytes {start} to {end} of {data_len} (was the upload cut off?)"));
    }
    // A type of unknown width is refused by name later; its range has been checked.
    if let Some(dtype_size) = size_of_dtype(&raw.dtype) {
        let expected_bytes = raw.shape.iter().try_fold(dtype_size, |bytes, &size| bytes.checked_mul(size));
        if expected_bytes != Some(end - start) {
            return Err(format!("has the shape {:?} of {} but {} bytes", raw.shape, raw.dtype, end - start));
        }
    }
    Ok(TensorInfo { dtype: raw.dtype, shape: raw.shape, byte_range: start..end })
}

/// Bytes of one value.
fn size_of_dtype(dtype: &str) -> Option<usize> {
    match dtype {
        "F32" => Some(4),
        "F16" | "BF16" => Some(2),
        _ => None,
    }
}

/// The ranges must cover the data from end to end, without a hole or an overlap.
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
