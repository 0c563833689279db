//! Sequences that are being continued: only their next rows go through the layers, what came before is remembered.

use super::{Recording, Tape, Var};
use crate::attention_mask::AttentionMask;
use crate::channel_ops::PrependedRows;
use crate::decode_attention::DecodeAttentionInput;
use crate::error::Result;
use crate::kv_cache::SequenceKvCache;
use crate::{Backend, Parameter};
use std::sync::Arc;

impl Tape {
    /// A tape on which each sequence goes on from its past. Nothing is differentiated.
    pub fn with_kv_cache(
        backend: Arc<dyn Backend>,
        parameters: Arc<[Parameter]>,
        kv_caches: Vec<SequenceKvCache>,
    ) -> Self {
        Self { kv_caches: Some(kv_caches), ..Self::new(backend, parameters, Recording::Off) }
    }

    /// Where sequences are being continued: what is remembered of each.
    pub fn kv_caches(&self) -> Option<&[SequenceKvCache]> {
        self.kv_caches.as_deref()
    }

    /// What is remembered at the end of a step, in which each sequence had the rows of this layout.
    pub fn into_kv_caches(mut self, lengths: impl IntoIterator<Item = usize>) -> Vec<SequenceKvCache> {
        let mut kv_caches = self.kv_caches.take().unwrap_or_default();
        for (kv_cache, rows) in kv_caches.iter_mut().zip(lengths) {
            kv_cache.advance(rows);
        }
        kv_caches
    }

    /// Keys and values of a layer in front of those sequences that have not begun.
    pub fn write_kv_prefix(
        &mut self,
        layer: usize,
        key: &PrependedRows<Var>,
        value: &PrependedRows<Var>,
    ) -> Result<()> {
        let [keys, values] = [self.to_host(key.rows)?.values, self.to_host(value.rows)?.values];
        let kv_caches = self.kv_caches.as_mut().expect("only a tape of continued sequences has a past");
        for kv_cache in kv_caches[key.sequences.clone()].iter_mut().filter(|past| past.is_empty()) {
            kv_cache.write_prefix(layer, &keys, &values);
        }
        Ok(())
    }

    /// Attention to all that came before, these rows included; the queries may be of a sequence's last rows only.
    pub fn decode_attention(
        &mut self,
        [query, key, value]: [Var; 3],
        heads: usize,
        layer: usize,
        mask: &AttentionMask,
    ) -> Result<Var> {
        let [q, k, v] = [self.buffer(query)?, self.buffer(key)?, self.buffer(value)?];
        let (query_layout, key_layout) = (self.layout(query), self.layout(key));
        let kv_caches = self.kv_caches.as_mut().expect("only a tape of continued sequences has a past");
        let attention_input = DecodeAttentionInput {
            layer,
            query: &q,
            key: &k,
            value: &v,
            query_layout: &query_layout,
            key_layout: &key_layout,
            heads,
            mask,
            kv_caches,
        };
        let rows = self.backend.decode_attention(attention_input)?;
        Ok(self.push_var(rows, query_layout, false))
    }
}
