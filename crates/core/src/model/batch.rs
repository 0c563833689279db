//! What goes into the base at once.

use super::{Tokens, Virtual};
use espalier_tensor::Packed;
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
    pub(super) layout: Arc<Packed>,
}

impl Batch {
    /// `front` is what stands in front of each sequence.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Tokens>, front: Virtual) -> Self {
        Self::mixed(sequences.into_iter().map(|tokens| (tokens, front)))
    }

    /// Sequences of several adapters.
    pub fn mixed<'a>(sequences: impl IntoIterator<Item = (&'a Tokens, Virtual)>) -> Self {
        let (mut ids, mut type_ids, mut positions, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (tokens, front) in sequences {
            let (virtual_tokens, first) = match front {
                Virtual::Nothing => (0, 0),
                Virtual::Tokens(count) => (count, 0),
                Virtual::Prefix(count) => (0, count),
            };
            let rows = virtual_tokens + tokens.ids.len();
            ids.extend(&tokens.ids);
            type_ids.resize(type_ids.len() + virtual_tokens, 0);
            type_ids.extend(&tokens.type_ids);
            positions.extend(first as u32..(first + rows) as u32);
            lengths.push(tokens.ids.len());
        }
        Self { ids, type_ids, positions, layout: Arc::new(Packed::from_lengths(lengths)) }
    }
}
