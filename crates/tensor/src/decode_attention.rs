//! Attention of a sequence's next rows to all that came before them and is remembered.
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::attention_mask::{AttentionMask, MaskContext};
use super::backend::{AttentionInput, Backend, Buffer, SaveForBackward};
use super::kv_cache::SequenceKvCache;
use super::{RaggedLayout, Tensor};
use crate::error::Result;

/// The next rows of some sequences in one layer. Keys and values are turned already, and are remembered on the way.
pub struct DecodeAttentionInput<'a> {
    pub layer: usize,
    /// `(rows, heads · head width)`: of each sequence its last next rows.
    pub query: &'a Buffer,
    /// Each `(rows, key heads · head width)`.
    pub key: &'a Buffer,
    pub value: &'a Buffer,
    /// The sequences' rows in `query`.
    pub query_layout: &'a RaggedLayout,
    /// Their rows in `key` and `value`.
    pub key_layout: &'a RaggedLayout,
    pub heads: usize,
    /// Causal.
    pub mask: &'a AttentionMask,
    /// One for each sequence.
    pub kv_caches: &'a mut [SequenceKvCache],
}

impl DecodeAttentionInput<'_> {
    /// Remembers the keys and values.
    pub fn append_to_cache(&mut self, backend: &(impl Backend + ?Sized)) -> Result<()> {
        let [keys, values] = [backend.download(self.key)?.values, backend.download(self.value)?.values];
        let width = self.key.width();
        for (kv_cache, rows) in self.kv_caches.iter_mut().zip(self.key_layout.row_ranges()) {
            let numbers = rows.start * width..rows.end * width;
            kv_cache.append(self.layer, &keys[numbers.clone()], &values[numbers]);
        }
        Ok(())
    }
}

pub trait DecodeAttentionOps {
    /// softmax(Q·Kᵀ/√d)·V over all that is remembered of a sequence, these rows included: row by row the same numbers as
    /// attention gives that sees the whole sequence at once.
    fn decode_attention(&self, input: DecodeAttentionInput) -> Result<Buffer>;
}

/// Of what is remembered, brought to the device: for kernels that have nothing of their own.
pub fn decode_attention_gathered(backend: &(impl Backend + ?Sized), mut input: DecodeAttentionInput) -> Result<Buffer> {
    input.append_to_cache(backend)?;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let lengths = || {
        input
            .kv_caches
            .iter()
            .zip(input.key_layout.row_ranges())
            .map(|(kv_cache, rows)| kv_cache.next_row(input.layer) + rows.len())
    };
    for (kv_cache, length) in input.kv_caches.iter().zip(lengths()) {
        let [key, value] = kv_cache.read_rows(input.layer, length);
        keys.extend(key);
        values.extend(value);
    }
    let layout = RaggedLayout::from_lengths(lengths());
    let unprefixed_key_layout = RaggedLayout::from_lengths(
        input.kv_caches.iter().zip(lengths()).map(|(kv_cache, length)| length - kv_cache.prefix_lengths()[input.layer]),
    );
    let upload = |values: Vec<f32>| backend.upload(&Tensor::new([layout.num_rows(), input.key.width()], values));
    let (key, value) = (upload(keys)?, upload(values)?);
    let inputs = AttentionInput {
        query: input.query,
        key: &key,
        value: &value,
        query_layout: input.query_layout,
        key_layout: &layout,
        heads: input.heads,
        mask: Some(MaskContext { mask: input.mask, unprefixed_key_layout: &unprefixed_key_layout }),
    };
    Ok(backend.attention(inputs, SaveForBackward::No)?.0)
}
