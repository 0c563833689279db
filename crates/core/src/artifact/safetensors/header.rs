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
pub struct Entry {
    pub dtype: String,
    pub shape: Vec<usize>,
    /// Bytes after the header.
    pub range: Range<usize>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    _metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Claim>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The tensors by name, and the bytes that their ranges point into. The error says what is wrong.
pub fn parse(bytes: &[u8]) -> Result<(BTreeMap<String, Entry>, &[u8]), String> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or("it is shorter than eight bytes")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_HEADER_BYTES {
        return Err(format!("its header claims {length} bytes, at most {MAX_HEADER_BYTES} are accepted"));
    }
    let (header, data) = rest.split_at_checked(length).ok_or("it ends inside its header (was the upload cut off?)")?;
    let header: Header = serde_json::from_slice(header).map_err(|error| format!("its header is not valid: {error}"))?;
    let mut entries = BTreeMap::new();
    for (name, claim) in header.tensors {
        let entry = checked(claim, data.len()).map_err(|reason| format!("tensor {name} {reason}"))?;
        entries.insert(name, entry);
    }
    covers(&entries, data.len())?;
    Ok((entries, data))
}

/// The claim of one tensor, where its range lies within the data and holds its shape exactly.
fn checked(claim: Claim, available: usize) -> Result<Entry, String> {
    let (start, end) = claim.data_offsets;
    if start > end || end > available {
        return Err(format!("claims the bytes {start} to {end} of {available} (was the upload cut off?)"));
    }
    // A type of unknown width is refused by name later; its range has been checked.
    if let Some(width) = width(&claim.dtype) {
        let needed = claim.shape.iter().try_fold(width, |bytes, &size| bytes.checked_mul(size));
        if needed != Some(end - start) {
            return Err(format!("has the shape {:?} of {} but {} bytes", claim.shape, claim.dtype, end - start));
        }
    }
    Ok(Entry { dtype: claim.dtype, shape: claim.shape, range: start..end })
}

/// Bytes of one value.
fn width(dtype: &str) -> Option<usize> {
    match dtype {
        "F32" => Some(4),
        "F16" | "BF16" => Some(2),
        _ => None,
    }
}

/// The ranges must cover the data from end to end, without a hole or an overlap.
fn covers(entries: &BTreeMap<String, Entry>, available: usize) -> Result<(), String> {
    let mut ranges: Vec<(&Range<usize>, &String)> = entries.iter().map(|(name, entry)| (&entry.range, name)).collect();
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    let mut end = 0;
    for (range, name) in ranges {
        if range.start != end {
            return Err(format!("tensor {name} starts at byte {}, expected {end}", range.start));
        }
        end = range.end;
    }
    match end == available {
        true => Ok(()),
        false => Err(format!("{} bytes at its end belong to no tensor", available - end)),
    }
}
