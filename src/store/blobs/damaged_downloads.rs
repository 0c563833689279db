//! Downloads whose content is not what the name of the blob says: a damaged transfer, or a damaged object.

use super::object_storage;
use espalier_core::error::Result;

/// Downloads of a blob that gave other content than its name says, before the call fails.
const MAX_DAMAGED_DOWNLOADS: usize = 5;

/// Downloads of one blob whose content was not what its name says.
#[derive(Default)]
pub struct DamagedDownloads {
    count: usize,
    last_hash: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// The object may be intact, and the transfer damaged it.
    Unknown,
    Damaged,
}

impl DamagedDownloads {
    /// Records a download. The object is damaged if two downloads in a row gave the same wrong content.
    ///
    /// # Errors
    /// `Busy` if too many downloads gave different content.
    pub fn record(&mut self, name: &str, found: String) -> Result<ObjectState> {
        tracing::warn!(name, found, "a download is damaged");
        if self.last_hash.as_ref() == Some(&found) {
            return Ok(ObjectState::Damaged);
        }
        (self.count, self.last_hash) = (self.count + 1, Some(found));
        match self.count < MAX_DAMAGED_DOWNLOADS {
            true => Ok(ObjectState::Unknown),
            false => Err(object_storage::unavailable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_damaged_if_two_downloads_in_a_row_are_equal() {
        let mut damaged = DamagedDownloads::default();
        for found in ["a", "b", "a"] {
            assert_eq!(damaged.record("name", found.to_string()).unwrap(), ObjectState::Unknown);
        }
        assert_eq!(damaged.record("name", "a".to_string()).unwrap(), ObjectState::Damaged);
        let mut different = DamagedDownloads::default();
        let outcomes: Vec<bool> =
            (0..MAX_DAMAGED_DOWNLOADS).map(|number| different.record("name", number.to_string()).is_ok()).collect();
        assert_eq!(outcomes, [true, true, true, true, false], "the call fails in the end");
    }
}
