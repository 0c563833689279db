//! Has this text been seen before, and with which label? Remembers hashes, never texts.

use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Half of a sha256: nobody finds two texts with the same one.
type TextHash = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct DuplicateIndex {
    /// The first place of every text.
    first_occurrences: HashMap<TextHash, Occurrence>,
    /// The first places of the same text under other labels.
    other_label_lines: HashMap<(TextHash, u32), u64>,
}

#[derive(Debug, Clone, Copy)]
struct Occurrence {
    line: u64,
    label_index: u32,
}

/// What an earlier row had in common with this one, and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duplicate {
    Exact { line: u64 },
    ConflictingLabel { line: u64, label: u32 },
}

impl DuplicateIndex {
    /// Remembers a row; `label` is the label's number.
    pub fn insert(&mut self, line: u64, text: &str, text_pair: Option<&str>, label_index: u32) -> Option<Duplicate> {
        let text_hash = hash_text(text, text_pair);
        let Some(first_occurrence) = self.first_occurrences.get(&text_hash) else {
            self.first_occurrences.insert(text_hash, Occurrence { line, label_index });
            return None;
        };
        if first_occurrence.label_index == label_index {
            return Some(Duplicate::Exact { line: first_occurrence.line });
        }
        if let Some(line) = self.other_label_lines.get(&(text_hash, label_index)) {
            return Some(Duplicate::Exact { line: *line });
        }
        let duplicate =
            Duplicate::ConflictingLabel { line: first_occurrence.line, label: first_occurrence.label_index };
        self.other_label_lines.insert((text_hash, label_index), line);
        Some(duplicate)
    }
}

fn hash_text(text: &str, text_pair: Option<&str>) -> TextHash {
    let mut hasher = Sha256::new();
    // The length in front keeps ("ab", "c") and ("a", "bc") apart.
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
    if let Some(pair) = text_pair {
        hasher.update([1]);
        hasher.update(pair);
    }
    let mut truncated = TextHash::default();
    truncated.copy_from_slice(&hasher.finalize()[..16]);
    truncated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_refers_to_first_occurrence() {
        let mut index = DuplicateIndex::default();
        assert_eq!(index.insert(2, "a", None, 0), None);
        assert_eq!(index.insert(3, "a", None, 1), Some(Duplicate::ConflictingLabel { line: 2, label: 0 }));
        assert_eq!(index.insert(4, "a", None, 1), Some(Duplicate::Exact { line: 3 }));
        assert_eq!(index.insert(5, "a", None, 0), Some(Duplicate::Exact { line: 2 }));
    }

    #[test]
    fn pair_hash_differs_from_concatenation() {
        let mut index = DuplicateIndex::default();
        assert_eq!(index.insert(1, "ab", Some("c"), 0), None);
        assert_eq!(index.insert(2, "a", Some("bc"), 0), None);
        assert_eq!(index.insert(3, "abc", None, 0), None);
        assert_eq!(index.insert(4, "abc", Some(""), 0), None);
    }
}
