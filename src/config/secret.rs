//! Secret values, and reading them from files, as Docker and Kubernetes mount them.

use espalier_core::error::{Error, Result};
use std::fmt;
use std::path::Path;

/// Value that `Debug` does not print, so that it does not appear in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

/// Reads a secret file; `flag` is the setting that names it.
///
/// # Errors
/// `Invalid` (`unreadable_secret`) if the file cannot be read.
pub fn read_secret_file(path: &Path, flag: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::invalid(
            "unreadable_secret",
            format!(
                "{flag} names {}, which cannot be read: {error}; check the path and its permissions",
                path.display()
            ),
        )
    })
}
