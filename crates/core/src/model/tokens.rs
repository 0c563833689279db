//! Token ids of one sequence, the batch of them that one forward pass reads, and the vocabulary of masked language modelling.

use super::hooks::VirtualTokens;
use espalier_tensor::RaggedLayout;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Token ids of one sequence, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    pub truncated: bool,
    /// Positions of the tokens that a token-level task reads: the first token of each word that was not truncated.
    pub target_positions: Vec<u32>,
}

impl Tokens {
    /// A sequence of type 0 that was not truncated.
    pub fn from_ids(ids: Vec<u32>) -> Self {
        Self { type_ids: vec![0; ids.len()], ids, truncated: false, target_positions: Vec::new() }
    }
}

/// Vocabulary of masked language modelling: the mask token, and the tokens that can replace a masked one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlmVocabulary {
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

    /// Positions that can be masked: those of tokens that are not special, or all if there are none.
    pub fn maskable_positions(&self, tokens: &Tokens) -> Vec<u32> {
        let ids_with_positions = tokens.ids.iter().zip(0..);
        let positions: Vec<u32> =
            ids_with_positions.filter(|(id, _)| !self.special_ids.contains(id)).map(|(_, position)| position).collect();
        if positions.is_empty() { (0..tokens.ids.len() as u32).collect() } else { positions }
    }

    /// Number of tokens that are not special.
    pub fn replacement_count(&self) -> usize {
        self.replacement_ids.len()
    }

    /// Id of the token at `index` among those that are not special.
    pub fn replacement_id(&self, index: usize) -> u32 {
        self.replacement_ids[index]
    }
}

/// Smallest maximum sequence length: the number of special tokens of a pair.
pub const MIN_SEQUENCE_LENGTH: usize = 4;

/// Range of Unicode code points of a text.
pub type CharSpan = Range<u32>;

/// Sequences of one forward pass, concatenated without padding.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Ids of the real tokens.
    pub(super) ids: Vec<u32>,
    /// Token type ids, including those of soft prompt rows (0).
    pub(super) type_ids: Vec<u32>,
    /// Position of each row in its sequence, including soft prompt rows. Positions start after the prefix.
    pub(super) positions: Vec<u32>,
    /// Layout of the real tokens.
    pub(super) layout: Arc<RaggedLayout>,
}

impl Batch {
    /// A batch in which every sequence has the same virtual tokens.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Tokens>, virtual_tokens: VirtualTokens) -> Self {
        Self::with_virtual_tokens(sequences.into_iter().map(|tokens| (tokens, virtual_tokens)))
    }

    /// A batch in which each sequence has its own virtual tokens.
    pub fn with_virtual_tokens<'a>(sequences: impl IntoIterator<Item = (&'a Tokens, VirtualTokens)>) -> Self {
        let (mut ids, mut type_ids, mut positions, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (tokens, virtual_tokens) in sequences {
            let (prompt_rows, first_position) = match virtual_tokens {
                VirtualTokens::Disabled => (0, 0),
                VirtualTokens::Prompt(count) => (count, 0),
                VirtualTokens::Prefix(count) => (0, count),
            };
            let rows = prompt_rows + tokens.ids.len();
            ids.extend(&tokens.ids);
            type_ids.resize(type_ids.len() + prompt_rows, 0);
            type_ids.extend(&tokens.type_ids);
            positions.extend(first_position as u32..(first_position + rows) as u32);
            lengths.push(tokens.ids.len());
        }
        Self { ids, type_ids, positions, layout: Arc::new(RaggedLayout::from_lengths(lengths)) }
    }
}
