//! Forward pass of sequences with a KV cache: only their new rows pass through the layers.

use super::{Recording, Tape, Var};
use crate::attention_mask::AttentionMask;
use crate::backend::{CachedSequence, DecodeAttentionInput, PrependedRows};
use crate::error::Result;
use crate::kv_cache::SequenceKvCache;
use crate::{Backend, Parameter};
use std::sync::Arc;

impl Tape {
    /// Tape whose sequences continue from one KV cache each. Records nothing.
    pub fn with_kv_cache(
        backend: Arc<dyn Backend>,
        parameters: Arc<[Parameter]>,
        kv_caches: Vec<SequenceKvCache>,
    ) -> Self {
        Self { kv_caches: Some(kv_caches), ..Self::new(backend, parameters, Recording::Off) }
    }

    /// The KV cache of each sequence, if the tape has any.
    pub fn kv_caches(&self) -> Option<&[SequenceKvCache]> {
        self.kv_caches.as_deref()
    }

    /// Ends the step and returns the KV caches, each advanced by its sequence's number of new rows.
    pub fn into_kv_caches(mut self, lengths: impl IntoIterator<Item = usize>) -> Vec<SequenceKvCache> {
        let mut kv_caches = self.kv_caches.take().unwrap_or_default();
        for (kv_cache, rows) in kv_caches.iter_mut().zip(lengths) {
            kv_cache.advance(rows);
        }
        kv_caches
    }

    /// Writes a layer's key and value prefix into the empty caches among `key.sequences`.
    pub fn write_kv_prefix(
        &mut self,
        layer: usize,
        key: &PrependedRows<Var>,
        value: &PrependedRows<Var>,
    ) -> Result<()> {
        let [keys, values] = [self.buffer(key.rows)?, self.buffer(value.rows)?];
        let kv_caches = self.kv_caches.as_mut().expect("the tape was made with KV caches");
        for kv_cache in kv_caches[key.sequences.clone()].iter_mut().filter(|kv_cache| kv_cache.is_empty()) {
            kv_cache.write_prefix(self.backend.as_ref(), layer, [&keys, &values])?;
        }
        Ok(())
    }

    /// Appends the keys and values to the caches and attends to all cached rows. The queries may be the last rows of each
    /// sequence only.
    pub fn decode_attention(
        &mut self,
        [query, key, value]: [Var; 3],
        heads: usize,
        layer: usize,
        mask: &AttentionMask,
    ) -> Result<Var> {
        let [q, k, v] = [self.buffer(query)?, self.buffer(key)?, self.buffer(value)?];
        let (query_layout, key_layout) = (self.layout(query), self.layout(key));
        let kv_caches = self.kv_caches.as_mut().expect("the tape was made with KV caches");
        for (kv_cache, rows) in kv_caches.iter_mut().zip(key_layout.row_ranges()) {
            kv_cache.append(self.backend.as_ref(), layer, [&k, &v], rows)?;
        }
        let cached = kv_caches.iter().zip(key_layout.row_ranges());
        let sequences: Vec<CachedSequence> =
            cached.map(|(kv_cache, rows)| kv_cache.cached_sequence(layer, rows.len())).collect();
        let Some(shape) = kv_caches.first().map(SequenceKvCache::shape) else { return Ok(query) };
        let input = DecodeAttentionInput {
            layer,
            query: &q,
            query_layout: &query_layout,
            heads,
            mask,
            shape,
            sequences: &sequences,
        };
        let rows = self.backend.decode_attention(input)?;
        Ok(self.push_var(rows, query_layout, false))
    }
}
