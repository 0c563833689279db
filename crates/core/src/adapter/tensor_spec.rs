//! Tensors of an adapter in a file: key, shape and native name, and the errors about them.

use crate::error::{Error, Result};
use std::fmt::Display;
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

/// The configuration file of PEFT and of AdapterHub.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// A file that is damaged or malformed (`unreadable_adapter`).
pub fn invalid_file(file: &str, reason: impl Display) -> Error {
    Error::invalid("unreadable_adapter", format!("{file}: {reason}"))
}

/// A valid file that requires something that is not implemented here (`unsupported_adapter`).
pub fn unsupported_file(file: &str, reason: impl Display) -> Error {
    Error::invalid("unsupported_adapter", format!("{file}: {reason}"))
}

/// Messages listed in one error; further ones are counted.
const MAX_LISTED: usize = 20;

/// Collects every error of a file, so that one attempt reports them all.
#[derive(Debug, Default)]
pub struct ValidationErrors {
    messages: Vec<String>,
    omitted: usize,
}

impl ValidationErrors {
    pub fn push(&mut self, message: impl Into<String>) {
        match self.messages.len() < MAX_LISTED {
            true => self.messages.push(message.into()),
            false => self.omitted += 1,
        }
    }

    /// # Errors
    /// `Invalid` with this code if there is any message: `intro`, the first messages, and the number of the others.
    pub fn into_result(self, code: &'static str, intro: &str) -> Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let mut detail = format!("{intro}: {}", self.messages.join("; "));
        if self.omitted > 0 {
            detail.push_str(&format!("; and {} more", self.omitted));
        }
        Err(Error::invalid(code, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_twenty_errors_and_counts_the_rest() {
        let mut errors = ValidationErrors::default();
        (0..23).for_each(|number| errors.push(format!("error {number}")));
        let error = errors.into_result("adapter_tensors", "the tensors do not fit").unwrap_err();
        assert_eq!(error.code(), "adapter_tensors");
        let detail = error.to_string();
        assert!(detail.starts_with("the tensors do not fit: error 0; error 1; "), "{detail}");
        assert!(detail.ends_with("error 19; and 3 more"), "{detail}");
    }

    #[test]
    fn no_messages_is_ok() {
        assert!(ValidationErrors::default().into_result("adapter_tensors", "wrong").is_ok());
    }
}
