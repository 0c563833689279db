//! KV cache on the device: each block keeps one tensor of keys and one of values per layer.

use super::{CandleBackend, CandleResult, CandleTensor, into_buffer};
use crate::RaggedLayout;
use crate::attention_mask::MaskContext;
use crate::backend::{
    AttentionInput, Backend, Buffer, CachedSequence, DecodeAttentionInput, KV_BLOCK_ROWS, KvBlock, KvCacheOps,
    KvCacheShape, SaveForBackward,
};
use crate::error::{Context, Result};
use std::ops::Range;

/// Keys and values of neighbouring rows, by layer. Tensors are never written in place, so clones share them.
#[derive(Clone)]
struct CandleKvBlock {
    /// `(rows so far, key heads · head width)` each; `None` before the first row.
    layers: Vec<Option<[CandleTensor; 2]>>,
}

impl KvCacheOps for CandleBackend {
    fn new_kv_block(&self, shape: KvCacheShape) -> Result<KvBlock> {
        Ok(KvBlock::new(CandleKvBlock { layers: vec![None; shape.layers] }))
    }

    fn write_kv_block(
        &self,
        block: &mut KvBlock,
        [layer, first_row]: [usize; 2],
        key_value: [&Buffer; 2],
        source: Range<usize>,
    ) -> Result<()> {
        let block: &mut CandleKvBlock = block.make_mut().expect("the block belongs to this backend");
        let cached = block.layers[layer].as_ref();
        let write = |side: usize| {
            let rows = key_value[side].as_tensor().narrow(0, source.start, source.len())?;
            match cached {
                Some(cached) if first_row > 0 => CandleTensor::cat(&[cached[side].narrow(0, 0, first_row)?, rows], 0),
                Some(_) | None => rows.copy(),
            }
        };
        let written = [write(0), write(1)].map(|rows| rows.context("writing the KV cache"));
        let [keys, values] = written;
        block.layers[layer] = Some([keys?, values?]);
        Ok(())
    }

    fn decode_attention(&self, input: DecodeAttentionInput) -> Result<Buffer> {
        let key = into_buffer("gathering cached keys", gather(&input, 0))?;
        let value = into_buffer("gathering cached values", gather(&input, 1))?;
        let key_layout = RaggedLayout::from_lengths(input.sequences.iter().map(|cached| cached.rows));
        let unprefixed_key_layout =
            RaggedLayout::from_lengths(input.sequences.iter().map(|cached| cached.rows - cached.prefix_rows));
        let attention_input = AttentionInput {
            query: input.query,
            key: &key,
            value: &value,
            query_layout: input.query_layout,
            key_layout: &key_layout,
            heads: input.heads,
            mask: Some(MaskContext { mask: input.mask, unprefixed_key_layout: &unprefixed_key_layout }),
        };
        Ok(self.attention(attention_input, SaveForBackward::No)?.0)
    }
}

/// The cached keys (side 0) or values (side 1) of all sequences `(rows, key heads · head width)`.
fn gather(input: &DecodeAttentionInput, side: usize) -> CandleResult {
    let mut parts = Vec::new();
    for CachedSequence { blocks, rows, .. } in input.sequences {
        for (block, first_row) in blocks.iter().zip((0..*rows).step_by(KV_BLOCK_ROWS)) {
            let block: &CandleKvBlock = block.downcast_ref().expect("the block belongs to this backend");
            let cached = block.layers[input.layer].as_ref().expect("the rows of this step were written");
            parts.push(cached[side].narrow(0, 0, KV_BLOCK_ROWS.min(rows - first_row))?);
        }
    }
    CandleTensor::cat(&parts, 0)
}
