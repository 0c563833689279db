//! Attention in a layer, with what an adapter puts in front of its keys, and what the architecture makes of positions there.

use super::hooked_ops;
use super::hooks::{Hooks, PrefixKeyValues};
use crate::error::Result;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::rotary::RotaryTable;
use espalier_tensor::{RaggedLayout, Tape, Var};
use std::sync::Arc;

/// How a layer attends.
pub struct SelfAttention {
    pub heads: usize,
    /// Queries and keys are turned by their positions.
    pub rotary: Option<Arc<RotaryTable>>,
    pub mask: Option<Arc<AttentionMask>>,
}

impl SelfAttention {
    /// Of a layer's projections, each `(rows, heads · head width)`, which are used up; the queries may be of some rows only, the
    /// keys and values of fewer heads.
    pub fn forward(&self, tape: &mut Tape, hooks: &dyn Hooks, layer: usize, qkv: [Var; 3]) -> Result<Var> {
        if tape.kv_caches().is_some() {
            return self.forward_cached(tape, hooks, layer, qkv);
        }
        let [mut query, mut key, value] = qkv;
        let unprefixed_key_layout = tape.layout(key);
        let prefixes = hooked_ops::kv_prefixes(tape, hooks, layer, key)?;
        if let Some(rotation) = &self.rotary {
            let prefix_lengths = prefixes.lengths(tape, unprefixed_key_layout.num_sequences());
            let query_layout = tape.layout(query);
            let query_offset = |sequence: usize| {
                let lengths = (query_layout.length(sequence), unprefixed_key_layout.length(sequence));
                self.mask.as_ref().map_or(0, |distance| distance.query_offset(lengths.0, lengths.1))
            };
            let query_starts =
                prefix_lengths.iter().enumerate().map(|(sequence, front)| front + query_offset(sequence));
            let asking = row_positions(&query_layout, query_starts);
            let head_dim = tape.width(query) / self.heads;
            let kv_heads = tape.width(key) / head_dim;
            query = tape.apply_rotary(query, self.heads, rotation, asking)?;
            key = tape.apply_rotary(key, kv_heads, rotation, row_positions(&unprefixed_key_layout, prefix_lengths))?;
        }
        let [key, value] = prefixes.prepend_to(tape, [key, value])?;
        match &self.mask {
            None => Ok(tape.attention(query, key, value, self.heads)?),
            Some(distance) => {
                Ok(tape.masked_attention([query, key, value], self.heads, distance, unprefixed_key_layout)?)
            }
        }
    }
}

impl SelfAttention {
    /// The same of sequences' next rows, which attend to all that is remembered of theirs.
    fn forward_cached(&self, tape: &mut Tape, hooks: &dyn Hooks, layer: usize, qkv: [Var; 3]) -> Result<Var> {
        let [mut query, mut key, value] = qkv;
        let Some(distance) = &self.mask else { unreachable!("only decoders are continued") };
        let key_layout = tape.layout(key);
        if tape.kv_caches().is_some_and(|pasts| pasts.iter().any(SequenceKvCache::is_empty)) {
            for PrefixKeyValues { key, value } in hooks.prefix_key_values(tape, layer, 0..key_layout.num_sequences())? {
                tape.write_kv_prefix(layer, &key, &value)?;
            }
        }
        if let Some(rotation) = &self.rotary {
            let key_starts: Vec<usize> =
                tape.kv_caches().unwrap_or_default().iter().map(|kv_cache| kv_cache.next_row(layer)).collect();
            let query_layout = tape.layout(query);
            let query_offset = |sequence: usize| key_layout.length(sequence) - query_layout.length(sequence);
            let query_starts = key_starts.iter().enumerate().map(|(sequence, first)| first + query_offset(sequence));
            let asking = row_positions(&query_layout, query_starts);
            let head_dim = tape.width(query) / self.heads;
            let kv_heads = tape.width(key) / head_dim;
            query = tape.apply_rotary(query, self.heads, rotation, asking)?;
            key = tape.apply_rotary(key, kv_heads, rotation, row_positions(&key_layout, key_starts))?;
        }
        Ok(tape.decode_attention([query, key, value], self.heads, layer, distance)?)
    }
}

/// Of each sequence's rows, counted on from its first. Keys in front are as stored, at no position.
fn row_positions(layout: &RaggedLayout, start_positions: impl IntoIterator<Item = usize>) -> Arc<[u32]> {
    let of = |(rows, first): (std::ops::Range<usize>, usize)| first as u32..(first + rows.len()) as u32;
    layout.row_ranges().zip(start_positions).flat_map(of).collect()
}
