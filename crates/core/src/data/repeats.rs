//! Has this text been seen before, and with which label? Remembers hashes, never texts.

use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Half of a sha256: nobody finds two texts with the same one.
type Hash = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// The first place of every text.
    first: HashMap<Hash, Seen>,
    /// The first places of the same text under other labels.
    others: HashMap<(Hash, u32), u64>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    line: u64,
    label: u32,
}

/// What an earlier row had in common with this one, and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Same { line: u64 },
    OtherLabel { line: u64, label: u32 },
}

impl Repeats {
    /// Remembers a row; `label` is the label's number.
    pub fn add(&mut self, line: u64, text: &str, text_pair: Option<&str>, label: u32) -> Option<Repeat> {
        let hash = hash(text, text_pair);
        let Some(first) = self.first.get(&hash) else {
            self.first.insert(hash, Seen { line, label });
            return None;
        };
        if first.label == label {
            return Some(Repeat::Same { line: first.line });
        }
        if let Some(line) = self.others.get(&(hash, label)) {
            return Some(Repeat::Same { line: *line });
        }
        let repeat = Repeat::OtherLabel { line: first.line, label: first.label };
        self.others.insert((hash, label), line);
        Some(repeat)
    }
}

fn hash(text: &str, text_pair: Option<&str>) -> Hash {
    let mut hasher = Sha256::new();
    // The length in front keeps ("ab", "c") and ("a", "bc") apart.
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
    if let Some(pair) = text_pair {
        hasher.update([1]);
        hasher.update(pair);
    }
    let mut half = Hash::default();
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_names_the_earliest_row_it_repeats() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.add(2, "a", None, 0), None);
        assert_eq!(repeats.add(3, "a", None, 1), Some(Repeat::OtherLabel { line: 2, label: 0 }));
        assert_eq!(repeats.add(4, "a", None, 1), Some(Repeat::Same { line: 3 }));
        assert_eq!(repeats.add(5, "a", None, 0), Some(Repeat::Same { line: 2 }));
    }

    #[test]
    fn a_pair_is_not_its_texts_run_together() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.add(1, "ab", Some("c"), 0), None);
        assert_eq!(repeats.add(2, "a", Some("bc"), 0), None);
        assert_eq!(repeats.add(3, "abc", None, 0), None);
        assert_eq!(repeats.add(4, "abc", Some(""), 0), None);
    }
}
