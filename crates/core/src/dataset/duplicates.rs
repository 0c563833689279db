//! Detection of repeated and conflicting rows, by hash: texts are not kept.

use super::diagnostics::{self, Diagnostic, quote};
use crate::task::RowSchema;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// First half of a SHA-256, which is enough to rule out accidental collisions.
type InputHash = [u8; 16];

/// What two rows are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DuplicateKey {
    input: InputHash,
    target: String,
}

/// First line of every input and of every pair of input and target.
#[derive(Debug, Default)]
pub(super) struct DuplicateIndex {
    first_occurrences: HashMap<InputHash, Occurrence>,
    /// Lines of inputs that occurred before with another target.
    other_target_lines: HashMap<(InputHash, usize), u64>,
    targets: Vec<String>,
    target_indices: HashMap<String, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Occurrence {
    line: u64,
    target_index: usize,
}

/// How a row repeats the input of an earlier row: with the same target, or with another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Duplicate {
    SameTarget { line: u64 },
    OtherTarget { line: u64, target: String },
}

impl DuplicateKey {
    /// Key of a row whose input has one target: a row with the same input and another target is a conflict.
    pub fn with_target(input: &[Option<&str>], target: impl Into<String>) -> Self {
        Self { input: hash_input(input), target: target.into() }
    }

    /// Key of a row whose input may have several targets: only equal rows are duplicates.
    pub fn whole_row(fields: &[Option<&str>]) -> Self {
        Self::with_target(fields, "")
    }
}

impl DuplicateIndex {
    /// Adds a row. Returns the first row with the same input and target, else the first with the same input.
    pub fn insert(&mut self, line: u64, key: &DuplicateKey) -> Option<Duplicate> {
        let (input, target_index) = (key.input, self.target_index(&key.target));
        let Some(first) = self.first_occurrences.get(&input).copied() else {
            self.first_occurrences.insert(input, Occurrence { line, target_index });
            return None;
        };
        if first.target_index == target_index {
            return Some(Duplicate::SameTarget { line: first.line });
        }
        if let Some(line) = self.other_target_lines.get(&(input, target_index)) {
            return Some(Duplicate::SameTarget { line: *line });
        }
        self.other_target_lines.insert((input, target_index), line);
        Some(Duplicate::OtherTarget { line: first.line, target: self.targets[first.target_index].clone() })
    }

    /// Number of distinct targets.
    pub fn target_count(&self) -> usize {
        self.targets.len()
    }

    fn target_index(&mut self, target: &str) -> usize {
        if let Some(index) = self.target_indices.get(target) {
            return *index;
        }
        let index = self.targets.len();
        self.targets.push(target.to_string());
        self.target_indices.insert(target.to_string(), index);
        index
    }
}

impl Duplicate {
    /// Warning for the later row, which has the target of `key`.
    pub fn to_diagnostic(&self, key: &DuplicateKey, schema: RowSchema) -> Diagnostic {
        let (text_field, target_field) = (schema.text_field(), schema.target_field());
        match self {
            Self::SameTarget { line } => {
                let target_phrase =
                    if target_field == text_field { String::new() } else { format!(" and {target_field}") };
                let message = format!("the same {text_field}{target_phrase} as on line {line}; both are kept");
                Diagnostic::new(diagnostics::DUPLICATE, message)
            }
            Self::OtherTarget { line, target } => {
                let message = format!(
                    "the same text has the {target_field} {} on line {line} and {} here; both are kept",
                    quote(target),
                    quote(&key.target)
                );
                Diagnostic::new(diagnostics::CONFLICTING_LABELS, message)
            }
        }
    }
}

fn hash_input(fields: &[Option<&str>]) -> InputHash {
    let mut hasher = Sha256::new();
    for field in fields {
        hasher.update([u8::from(field.is_some())]);
        if let Some(text) = field {
            // The length before the text keeps ("ab", "c") and ("a", "bc") apart.
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
    }
    let mut truncated = InputHash::default();
    truncated.copy_from_slice(&hasher.finalize()[..16]);
    truncated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(
        index: &mut DuplicateIndex,
        line: u64,
        text: &str,
        pair: Option<&str>,
        target: &str,
    ) -> Option<Duplicate> {
        index.insert(line, &DuplicateKey::with_target(&[Some(text), pair], target))
    }

    #[test]
    fn duplicate_refers_to_first_occurrence() {
        let mut index = DuplicateIndex::default();
        assert_eq!(insert(&mut index, 2, "a", None, "x"), None);
        let conflict = Duplicate::OtherTarget { line: 2, target: "x".to_string() };
        assert_eq!(insert(&mut index, 3, "a", None, "y"), Some(conflict));
        assert_eq!(insert(&mut index, 4, "a", None, "y"), Some(Duplicate::SameTarget { line: 3 }));
        assert_eq!(insert(&mut index, 5, "a", None, "x"), Some(Duplicate::SameTarget { line: 2 }));
        assert_eq!(index.target_count(), 2);
    }

    #[test]
    fn pair_hash_differs_from_concatenation() {
        let mut index = DuplicateIndex::default();
        for (line, (text, pair)) in (1..).zip([("ab", Some("c")), ("a", Some("bc")), ("abc", None), ("abc", Some(""))])
        {
            assert_eq!(insert(&mut index, line, text, pair, "x"), None);
        }
    }
}
