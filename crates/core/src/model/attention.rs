//! Self-attention of one layer, with rotary embeddings and prefix keys and values.

use super::hooks::{Hooks, PrefixKeyValues};
use crate::error::Result;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::rotary::RotaryTable;
use espalier_tensor::{RaggedLayout, Tape, Var};
use std::ops::Range;
use std::sync::Arc;

/// Attention settings of a layer.
pub struct SelfAttention {
    /// Number of query heads. The number of key and value heads follows from the width of the keys.
    pub heads: usize,
    /// Rotary embedding (Su et al. 2021) of queries and keys.
    pub rotary: Option<Arc<RotaryTable>>,
    /// `None`: every row attends to all rows of its sequence.
    pub mask: Option<Arc<AttentionMask>>,
}

impl SelfAttention {
    /// Attends from queries `(query rows, heads · head_dim)` to keys and values `(rows, kv_heads · head_dim)`, whose buffers it
    /// overwrites. The queries may be those of some rows only. If the tape has KV caches, the keys and values are appended to
    /// them and the queries attend to the whole cache.
    pub fn forward(&self, tape: &mut Tape, hooks: &dyn Hooks, layer: usize, qkv: [Var; 3]) -> Result<Var> {
        match tape.kv_caches() {
            Some(_) => self.forward_cached(tape, hooks, layer, qkv),
            None => self.forward_uncached(tape, hooks, layer, qkv),
        }
    }

    fn forward_uncached(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        layer: usize,
        [query, key, value]: [Var; 3],
    ) -> Result<Var> {
        let layout = tape.layout(key);
        let prefixes = hooks.prefix_key_values(tape, layer, 0..layout.num_sequences())?;
        let prefix_lengths = prefix_lengths(tape, &prefixes, layout.num_sequences());
        let [query, key] = self.apply_rotary(tape, [query, key], &prefix_lengths)?;
        let [key, value] = prepend_prefixes(tape, prefixes, [key, value])?;
        match &self.mask {
            None => Ok(tape.attention(query, key, value, self.heads)?),
            Some(mask) => Ok(tape.masked_attention([query, key, value], self.heads, mask, layout)?),
        }
    }

    fn forward_cached(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        layer: usize,
        [query, key, value]: [Var; 3],
    ) -> Result<Var> {
        let Some(mask) = &self.mask else { unreachable!("only causal layers have a KV cache") };
        let sequences = tape.layout(key).num_sequences();
        if tape.kv_caches().is_some_and(|caches| caches.iter().any(SequenceKvCache::is_empty)) {
            for PrefixKeyValues { key, value } in hooks.prefix_key_values(tape, layer, 0..sequences)? {
                tape.write_kv_prefix(layer, &key, &value)?;
            }
        }
        let caches = tape.kv_caches().unwrap_or_default();
        let key_starts: Vec<usize> = caches.iter().map(|cache| cache.next_row(layer)).collect();
        let [query, key] = self.apply_rotary(tape, [query, key], &key_starts)?;
        Ok(tape.decode_attention([query, key, value], self.heads, layer, mask)?)
    }

    /// Rotates queries and keys. `key_starts` is the position of the first key of each sequence.
    fn apply_rotary(&self, tape: &mut Tape, [query, key]: [Var; 2], key_starts: &[usize]) -> Result<[Var; 2]> {
        let Some(rotary) = &self.rotary else { return Ok([query, key]) };
        let (query_layout, key_layout) = (tape.layout(query), tape.layout(key));
        // The queries may be those of the first rows, or in a causal layer of the last rows, of each sequence.
        let query_start = |(sequence, key_start): (usize, &usize)| {
            let lengths = (query_layout.length(sequence), key_layout.length(sequence));
            key_start + self.mask.as_ref().map_or(0, |mask| mask.query_offset(lengths.0, lengths.1))
        };
        let query_positions = row_positions(&query_layout, key_starts.iter().enumerate().map(query_start));
        let key_positions = row_positions(&key_layout, key_starts.iter().copied());
        let kv_heads = tape.width(key) * self.heads / tape.width(query);
        let query = tape.apply_rotary(query, self.heads, rotary, query_positions)?;
        Ok([query, tape.apply_rotary(key, kv_heads, rotary, key_positions)?])
    }
}

/// Number of prefix rows of each sequence.
fn prefix_lengths(tape: &Tape, prefixes: &[PrefixKeyValues], sequences: usize) -> Vec<usize> {
    let mut lengths = vec![0; sequences];
    for PrefixKeyValues { key, .. } in prefixes {
        lengths[key.sequences.clone()].fill(tape.layout(key.rows).num_rows());
    }
    lengths
}

fn prepend_prefixes(tape: &mut Tape, prefixes: Vec<PrefixKeyValues>, [key, value]: [Var; 2]) -> Result<[Var; 2]> {
    if prefixes.is_empty() {
        return Ok([key, value]);
    }
    let (keys, values): (Vec<_>, Vec<_>) = prefixes.into_iter().map(|prefix| (prefix.key, prefix.value)).unzip();
    Ok([tape.prepend_rows(key, &keys)?, tape.prepend_rows(value, &values)?])
}

/// Consecutive positions of the rows of each sequence, from its start position on.
fn row_positions(layout: &RaggedLayout, start_positions: impl IntoIterator<Item = usize>) -> Arc<[u32]> {
    let positions = |(rows, start): (Range<usize>, usize)| start as u32..(start + rows.len()) as u32;
    layout.row_ranges().zip(start_positions).flat_map(positions).collect()
}
