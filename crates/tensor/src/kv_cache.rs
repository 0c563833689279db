//! Paged KV cache of one sequence.
//!
//! A block holds the keys and values of some neighbouring rows in all layers, in the backend's own memory. Sequences with a
//! common prefix share its blocks (Kwon et al. 2023); a shared block is copied before it is written.

use crate::backend::{Backend, Buffer, CachedSequence};
pub use crate::backend::{KV_BLOCK_ROWS as BLOCK_SIZE, KvBlock, KvCacheShape};
use crate::error::Result;
use std::ops::Range;
use std::sync::Arc;

/// Paged KV cache of one sequence.
#[derive(Debug, Clone)]
pub struct SequenceKvCache {
    shape: KvCacheShape,
    blocks: Vec<KvBlock>,
    num_rows: usize,
    /// By layer: rows of the adapter's key and value prefix, which precede the sequence's own.
    prefix_lengths: Arc<[usize]>,
}

impl SequenceKvCache {
    pub fn new(shape: KvCacheShape) -> Self {
        Self { shape, blocks: Vec::new(), num_rows: 0, prefix_lengths: vec![0; shape.layers].into() }
    }

    /// Cache whose prefix and first `num_rows` rows are those of shared blocks.
    pub fn from_shared_blocks(
        shape: KvCacheShape,
        blocks: Vec<KvBlock>,
        num_rows: usize,
        prefix_lengths: Arc<[usize]>,
    ) -> Self {
        Self { shape, blocks, num_rows, prefix_lengths }
    }

    pub fn shape(&self) -> KvCacheShape {
        self.shape
    }

    /// Rows of the sequence, virtual tokens included and key and value prefixes not.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// By layer: rows of the key and value prefix.
    pub fn prefix_lengths(&self) -> &Arc<[usize]> {
        &self.prefix_lengths
    }

    pub fn is_empty(&self) -> bool {
        self.num_rows == 0
    }

    /// Index of the layer's next row in the blocks.
    pub fn next_row(&self, layer: usize) -> usize {
        self.prefix_lengths[layer] + self.num_rows
    }

    /// Position of the next row, counted from the start of the longest prefix of any layer.
    pub fn next_position(&self) -> usize {
        self.prefix_lengths.iter().copied().max().unwrap_or(0) + self.num_rows
    }

    /// Blocks that are full in the layer with the longest prefix.
    pub fn full_blocks(&self) -> &[KvBlock] {
        &self.blocks[..self.next_position() / BLOCK_SIZE]
    }

    pub fn blocks(&self) -> &[KvBlock] {
        &self.blocks
    }

    /// The cached rows of a layer, with `new_rows` appended rows that [`SequenceKvCache::advance`] has not counted yet.
    pub fn cached_sequence(&self, layer: usize, new_rows: usize) -> CachedSequence<'_> {
        let prefix_rows = self.prefix_lengths[layer];
        CachedSequence { blocks: &self.blocks, rows: self.next_row(layer) + new_rows, prefix_rows }
    }

    /// Writes a layer's key and value prefix, `(rows, key heads · head width)` each, into an empty cache.
    ///
    /// # Errors
    /// Those of the device.
    pub fn write_prefix(&mut self, backend: &dyn Backend, layer: usize, key_value: [&Buffer; 2]) -> Result<()> {
        let rows = key_value[0].rows();
        Arc::make_mut(&mut self.prefix_lengths)[layer] = rows;
        self.write_rows(backend, [layer, 0], key_value, 0..rows)
    }

    /// Writes the rows `source` of `key_value`, `(rows, key heads · head width)` each, as the layer's next rows.
    ///
    /// # Errors
    /// Those of the device.
    pub fn append(
        &mut self,
        backend: &dyn Backend,
        layer: usize,
        key_value: [&Buffer; 2],
        source: Range<usize>,
    ) -> Result<()> {
        self.write_rows(backend, [layer, self.next_row(layer)], key_value, source)
    }

    fn write_rows(
        &mut self,
        backend: &dyn Backend,
        [layer, first_row]: [usize; 2],
        key_value: [&Buffer; 2],
        source: Range<usize>,
    ) -> Result<()> {
        let mut written = 0;
        while written < source.len() {
            let row = first_row + written;
            if row / BLOCK_SIZE == self.blocks.len() {
                self.blocks.push(backend.new_kv_block(self.shape)?);
            }
            let count = (BLOCK_SIZE - row % BLOCK_SIZE).min(source.len() - written);
            let part = source.start + written..source.start + written + count;
            let block = &mut self.blocks[row / BLOCK_SIZE];
            backend.write_kv_block(block, [layer, row % BLOCK_SIZE], key_value, part)?;
            written += count;
        }
        Ok(())
    }

    /// Drops the last rows; the next ones take their place.
    pub fn drop_last_rows(&mut self, rows: usize) {
        self.num_rows -= rows;
    }

    /// Counts rows that have passed through all layers.
    pub fn advance(&mut self, rows: usize) {
        self.num_rows += rows;
    }
}
