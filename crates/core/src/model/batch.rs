//! Input of one forward pass.

use super::hooks::VirtualTokens;
use super::tokens::Tokens;
use espalier_tensor::RaggedLayout;
use std::sync::Arc;

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
