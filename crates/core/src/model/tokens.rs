//! Token ids of one sequence, and the vocabulary of masked language modelling.

use std::collections::BTreeSet;
use std::ops::Range;

/// A tokenized input with its special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    pub truncated: bool,
    /// For tasks that read single tokens: those that stand for words, one for each word that was not cut off.
    pub target_positions: Vec<u32>,
}

impl Tokens {
    /// One text's, whole.
    pub fn from_ids(ids: Vec<u32>) -> Self {
        Self { type_ids: vec![0; ids.len()], ids, truncated: false, target_positions: Vec::new() }
    }
}

/// What it takes to hide tokens: a mask for them, and what may be hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlmVocabulary {
    /// The mask's id.
    pub mask_id: u32,
    special_ids: BTreeSet<u32>,
    /// Ids that are not special.
    replacement_ids: Vec<u32>,
}

impl MlmVocabulary {
    pub fn new(mask_id: u32, special_ids: BTreeSet<u32>, vocabulary_size: u32) -> Self {
        let replacement_ids = (0..vocabulary_size).filter(|id| !special_ids.contains(id)).collect();
        Self { mask_id, special_ids, replacement_ids }
    }

    /// The rows of the tokens that may be hidden: all, where a text is made of nothing but special ones.
    pub fn maskable_positions(&self, tokens: &Tokens) -> Vec<u32> {
        let ids_with_positions = tokens.ids.iter().zip(0..);
        let positions: Vec<u32> =
            ids_with_positions.filter(|(id, _)| !self.special_ids.contains(id)).map(|(_, row)| row).collect();
        if positions.is_empty() { (0..tokens.ids.len() as u32).collect() } else { positions }
    }

    /// How many words there are.
    pub fn replacement_count(&self) -> usize {
        self.replacement_ids.len()
    }

    /// One of them.
    pub fn replacement_id(&self, index: usize) -> u32 {
        self.replacement_ids[index]
    }
}

/// What a sequence may be cut to at the least: the special tokens of a pair take so many.
pub const MIN_SEQUENCE_LENGTH: usize = 4;

/// Some characters of a text: Unicode code points, the end exclusive.
pub type CharSpan = Range<u32>;
