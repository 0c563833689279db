//! How a tensor of an adapter is stored in a file: its key and shape there, and its native name.

use std::ops::Range;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub key: String,
    pub shape: Vec<usize>,
    /// The native tensors that make up this one: one, except for PEFT's prefix of all layers.
    pub slices: Vec<TensorSlice>,
}

/// One native tensor as a range of columns of a file's tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSlice {
    pub name: String,
    pub shape: Vec<usize>,
    pub column_range: Range<usize>,
}

impl TensorSpec {
    /// A tensor of the file whose shape differs from the native one; the values are the same.
    pub fn reshaped(key: String, shape: Vec<usize>, name: String, native_shape: Vec<usize>) -> Self {
        let column_range = 0..shape.last().copied().unwrap_or(1);
        Self { key, shape, slices: vec![TensorSlice { name, shape: native_shape, column_range }] }
    }

    /// A tensor of the file with the native shape.
    pub fn with_key(key: String, name: String, shape: Vec<usize>) -> Self {
        Self::reshaped(key, shape.clone(), name, shape)
    }

    /// A tensor that the file stores under its native name, because the file's format has no key for it.
    pub fn with_native_key(name: String, shape: Vec<usize>) -> Self {
        Self::with_key(name.clone(), name, shape)
    }
}

/// The message for a tensor of the wrong shape.
pub fn shape_mismatch(name: &str, found: &[usize], expected: &[usize]) -> String {
    format!("{name} has the shape {found:?}, expected {expected:?}")
}
