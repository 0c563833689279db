//! What goes into the base at once.

use super::{Tokens, VirtualTokens};
use espalier_tensor::RaggedLayout;
use std::sync::Arc;

/// Sequences ready for the base: the tokens of all of them end to end.
#[derive(Debug, Clone)]
pub struct Batch {
    pub(super) ids: Vec<u32>,
    /// Of virtual tokens too, which are of the first type.
    pub(super) type_ids: Vec<u32>,
    /// Counted within each sequence, from 0 on at its first virtual token or prefix; of virtual tokens too.
    pub(super) positions: Vec<u32>,
    /// Of the real tokens.
    pub(super) layout: Arc<RaggedLayout>,
}

impl Batch {
    /// `front` is what stands in front of each sequence.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Tokens>, virtual_tokens: VirtualTokens) -> Self {
        Self::with_virtual_tokens(sequences.into_iter().map(|tokens| (tokens, virtual_tokens)))
    }

    /// Sequences of several adapters.
    pub fn with_virtual_tokens<'a>(sequences: impl IntoIterator<Item = (&'a Tokens, VirtualTokens)>) -> Self {
        let (mut ids, mut type_ids, mut positions, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (tokens, front) in sequences {
            let (prompt_length, first_position) = match front {
                VirtualTokens::Disabled => (0, 0),
                VirtualTokens::Prompt(count) => (count, 0),
                VirtualTokens::Prefix(count) => (0, count),
            };
            let rows = prompt_length + tokens.ids.len();
            ids.extend(&tokens.ids);
            type_ids.resize(type_ids.len() + prompt_length, 0);
            type_ids.extend(&tokens.type_ids);
            positions.extend(first_position as u32..(first_position + rows) as u32);
            lengths.push(tokens.ids.len());
        }
        Self { ids, type_ids, positions, layout: Arc::new(RaggedLayout::from_lengths(lengths)) }
    }
}
