//! Downloads whose sha256 is not that of the blob: the transfer was damaged, or the object is.

use super::object_storage;
use espalier_core::error::Result;

/// Downloads of a blob with another sha256 after which the call fails.
const MAX_MISMATCHES: usize = 5;

/// Downloads of one blob with another sha256.
#[derive(Default)]
pub struct ChecksumMismatches {
    count: usize,
    last_hash: Option<String>,
}

impl ChecksumMismatches {
    /// Records a download. Returns whether the object itself is damaged: two downloads in a row had the same wrong sha256.
    ///
    /// # Errors
    /// `Busy` if too many downloads gave different content.
    pub fn record(&mut self, name: &str, found: String) -> Result<bool> {
        tracing::warn!(name, found, "a download is damaged");
        if self.last_hash.as_ref() == Some(&found) {
            return Ok(true);
        }
        (self.count, self.last_hash) = (self.count + 1, Some(found));
        match self.count < MAX_MISMATCHES {
            true => Ok(false),
            false => Err(object_storage::unavailable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_damaged_if_two_downloads_in_a_row_are_equal() {
        let mut damaged = ChecksumMismatches::default();
        for found in ["a", "b", "a"] {
            assert!(!damaged.record("name", found.to_string()).unwrap());
        }
        assert!(damaged.record("name", "a".to_string()).unwrap());
        let mut different = ChecksumMismatches::default();
        let outcomes: Vec<bool> =
            (0..MAX_MISMATCHES).map(|number| different.record("name", number.to_string()).is_ok()).collect();
        assert_eq!(outcomes, [true, true, true, true, false], "the call fails in the end");
    }
}
